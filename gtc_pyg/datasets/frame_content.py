r"""Content of one's own items, brought into the order of the items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.content_values import holds_vectors, is_sparse, numbers_of
from gtc_pyg.datasets.frame_columns import hint, ids, same_kind, show

_NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty")
_MANY = 10  # integers that are each item's number once are ids; of fewer items it may be chance


class Content(NamedTuple):
    r"""Content of a modality.

    Attributes:
        ids: The items of the rows; :obj:`None` where they are those of the table of items.
        x: ``[n, F]``, float32, finite.
    """

    ids: pd.Index | None
    x: Tensor

    def rows_of(self, items: pd.Index) -> tuple[Tensor, Tensor]:
        r"""Content ``[len(items), F]``, zeros where there is none, and who has it, bool."""
        if self.ids is None:
            return self.x, torch.ones(len(items), dtype=torch.bool)
        row = torch.from_numpy(items.get_indexer(self.ids).astype(np.int64))
        x, has = self.x.new_zeros(len(items), self.x.size(1)), torch.zeros(len(items)).bool()
        x[row], has[row] = self.x, True
        return x, has


def read_content(
    features: Mapping[str, Any] | None, item: str, items: pd.Index | None, touched: pd.Index
) -> dict[str, Content]:
    r"""Reads and checks the content of every modality.

    Args:
        features: As in :func:`~gtc_pyg.datasets.from_frames`.
        item: The name of the item column.
        items: The ids of the table of items, where there is one.
        touched: The items of the interactions.
    """
    if not isinstance(features, Mapping) or not features:
        got = "none" if isinstance(features, Mapping) else type(features).__name__
        raise ValueError(
            "'features' must map the names of one or more modalities to content (got "
            f"{show(features) if features is None else got}; in a command --features NAME=FILE)"
        )
    return {name: _read(name, value, item, items, touched) for name, value in features.items()}


def _read(name: str, value: Any, item: str, items: pd.Index | None, touched: pd.Index) -> Content:
    what = f"features[{name!r}]"
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{what}: the name of a modality must be a word such as 'image'")
    if isinstance(value, Mapping) and not is_sparse(value):
        value = pd.Series(list(value.values()), index=list(value), dtype=object)
    if not isinstance(value, pd.DataFrame | pd.Series):
        if items is None:
            raise ValueError(
                f"{what} has rows without ids, which would be those of 'items' (got None): give "
                "'items', or a DataFrame, Series or dict by item id"
            )
        x = _matrix(value, what)
        if len(x) != len(items):
            raise ValueError(
                f"{what} has {len(x)} rows, 'items' has {len(items)}; expected one row per item, "
                "or a DataFrame, Series or dict by item id"
            )
        return Content(None, x)
    if isinstance(value, pd.DataFrame) and item in value.columns:
        if not isinstance(value[item], pd.Series):
            raise ValueError(f"{what} has {value[item].shape[1]} columns {item!r}, expected one")
        value = value.set_index(item)
    known, where = (touched, "'interactions'") if items is None else (items, "'items'")
    if isinstance(value, pd.DataFrame) and isinstance(value.index, pd.RangeIndex):
        _refuse_other_ids(value, what, item, known)
    index = ids(value.index, f"the index of {what}")
    if not index.is_unique:
        again = show(index[index.duplicated()][0])
        raise ValueError(
            f"{what} has item {again} twice, expected once: one row, or entry, per item"
        )
    same_kind(index, f"the index of {what}", known, where)
    unknown = index[~index.isin(known)]
    if items is not None and len(unknown):
        raise ValueError(
            f"{what} has {len(unknown)} item(s) that 'items' lacks, such as {show(unknown[0])}; "
            "add their rows to 'items', or leave them out"
        )
    return Content(index, _matrix(value, what, index))


def _refuse_other_ids(frame: pd.DataFrame, what: str, item: str, known: pd.Index) -> None:
    r"""Refuses a table with the numbers of its rows as index and its ids under another name."""
    if frame.index.name == item:
        return
    for position, name in enumerate(frame.columns):
        entries = frame.iloc[:, position]
        if holds_vectors(entries):
            continue
        kind = pd.api.types.infer_dtype(entries, skipna=True)
        words = kind not in _NUMBERS
        more = known.isin(entries).sum() > known.isin(frame.index).sum()
        all_once = kind == "integer" and entries.is_unique and known.isin(entries).all()
        if words or more or (all_once and len(known) >= _MANY):
            raise ValueError(
                f"{what} has no column {item!r} and no index of ids, but a column {name!r} "
                f"(such as {show(entries.iloc[0]) if len(entries) else None}){hint(item, [name])}; "
                f"name the column of ids {item!r}: rename(columns={{{name!r}: {item!r}}}), or the "
                f"index, where the numbers of the rows are the ids: rename_axis({item!r})"
            )


def _matrix(value: Any, what: str, index: pd.Index | None = None) -> Tensor:
    found = numbers_of(value, what, index)
    with np.errstate(over="ignore"):
        x = np.array(found, dtype=np.float32, order="C")
    finite = np.isfinite(x)
    if not finite.all():
        row, col = np.argwhere(~finite)[0]
        owner = "" if index is None else f" (item {show(index[row])})"
        raise ValueError(
            f"{what}, row {row}{owner}, column {col} is {found[row, col]}, expected finite content "
            "(within float32); items that lack it are left out of a DataFrame, Series or dict by "
            "item id"
        )
    return torch.from_numpy(x)
