from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.recommend.ids import Ids, as_list

Interactions = pd.DataFrame | Mapping[Any, Iterable[Any]]


def as_frame(interactions: Interactions) -> pd.DataFrame:
    r"""Interactions as a table with the columns ``user`` and ``item``, none twice.

    Args:
        interactions: Such a table (further columns are not looked at), or a mapping of users to
            their items.

    Raises:
        ValueError: For a table without these columns, or a missing id.
    """
    if isinstance(interactions, Mapping):
        pairs = [(user, item) for user, items in interactions.items() for item in as_list(items)]
        frame = pd.DataFrame(pairs, columns=["user", "item"])
    else:
        if not isinstance(interactions, pd.DataFrame):
            raise ValueError(
                f"'interactions' must be a table with the columns 'user' and 'item', or a mapping "
                f"of users to items (got {type(interactions).__name__})"
            )
        lacking = [name for name in ("user", "item") if name not in interactions.columns]
        if lacking:
            raise ValueError(
                f"'interactions' lacks {lacking} (it has {list(interactions.columns)}): name the "
                "columns so, by rename(columns=...)"
            )
        frame = interactions[["user", "item"]]
    missing = frame.isna().any(axis=1)
    if missing.any():
        row = int(missing.to_numpy().argmax())
        raise ValueError(
            f"'interactions' lacks an id in row {row} (from 0): {frame.iloc[row].to_dict()}; drop "
            f"such rows, {int(missing.sum())} in all"
        )
    return frame.drop_duplicates(ignore_index=True)


def pairs_of(interactions: Interactions, users: Ids, items: Ids) -> Tensor:
    r"""Interactions by row ``[2, E]``.

    Raises:
        ValueError: As :func:`as_frame`, and for an unknown user or item.
    """
    frame = as_frame(interactions)
    return torch.stack([users.rows(frame["user"]), items.rows(frame["item"])])
