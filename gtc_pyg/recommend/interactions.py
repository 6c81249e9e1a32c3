from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.exact_ids import as_list, exact_ids
from gtc_pyg.datasets.frame_columns import as_pandas, column
from gtc_pyg.recommend.ids import Ids

Interactions = pd.DataFrame | Mapping[Any, Iterable[Any]]


def as_frame(interactions: Interactions) -> pd.DataFrame:
    r"""Interactions as a table with the columns ``user`` and ``item``, none twice.

    Args:
        interactions: Such a table (further columns are not looked at), or a mapping of users to
            their items.

    Raises:
        ValueError: For a table without these columns, or a missing id.
    """
    interactions = as_pandas(interactions)
    if isinstance(interactions, Mapping):
        pairs = [(user, item) for user, items in interactions.items() for item in as_list(items)]
        given = {
            name: pd.Series([pair[i] for pair in pairs], dtype=object)
            for i, name in enumerate(("user", "item"))
        }
    else:
        if not isinstance(interactions, pd.DataFrame):
            raise ValueError(
                f"'interactions' must be a table with the columns 'user' and 'item', or a mapping "
                f"of users to items (got {type(interactions).__name__})"
            )
        names, levels = ("user", "item"), interactions.index.names
        lacking = [n for n in names if n not in interactions.columns and n not in levels]
        if lacking:
            raise ValueError(
                f"'interactions' lacks {lacking} (it has {list(interactions.columns)}): name the "
                "columns so, by rename(columns=...)"
            )
        given = {name: column(interactions, name, name, "interactions") for name in names}
    ids = {name: exact_ids(given[name], f"'interactions', {name} ids") for name in given}
    return pd.DataFrame(ids).drop_duplicates(ignore_index=True)


def pairs_of(interactions: Interactions, users: Ids, items: Ids) -> Tensor:
    r"""Interactions by row ``[2, E]``.

    Raises:
        ValueError: As :func:`as_frame`, and for an unknown user or item.
    """
    frame = as_frame(interactions)
    return torch.stack([users.rows(frame["user"]), items.rows(frame["item"])])
