r"""Tables of one's own, and what comes back of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from gtc_pyg.datasets import InteractionDataset

RATES = ("user", "rates", "item")
Triples = set[tuple[Any, Any, str]]


def log(num_rows: int = 400, seed: int = 0) -> pd.DataFrame:
    r"""Ratings and plays of 25 users and 30 items, with repetitions and equal times."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": [f"u{user}" for user in rng.integers(25, size=num_rows)],
            "item": [f"i{item}" for item in (30 * rng.random(num_rows) ** 2).astype(int)],
            "stars": rng.integers(1, 6, size=num_rows),
            "plays": rng.integers(1, 9, size=num_rows),
            "when": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(rng.integers(60, size=num_rows), "D"),
        }
    )


def catalogue(size: int = 33) -> pd.DataFrame:
    names = [f"i{item}" for item in np.random.default_rng(1).permutation(size)]
    return pd.DataFrame({"item": names, "title": [f"the {name}" for name in names]})


def content(items: pd.DataFrame, width: int = 3) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((len(items), width))


def triples(dataset: InteractionDataset) -> Triples:
    r"""(user, item, split) of all interactions, in the ids of the tables."""
    found = set()
    for split in ("train", "val", "test"):
        user, item = dataset.view(split)[RATES].edge_label_index.numpy()
        pairs = zip(dataset.user_ids[user], dataset.item_ids[item], strict=True)
        found |= {(*pair, split) for pair in pairs}
    return found
