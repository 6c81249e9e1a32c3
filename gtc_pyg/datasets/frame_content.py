r"""Content of one's own items, brought into the order of the items."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.content_values import holds_vectors, is_sparse, numbers_of
from gtc_pyg.datasets.exact_ids import check_same_kind, difference, rows_of, shared, show
from gtc_pyg.datasets.frame_columns import as_pandas, hint, ids

_NUMBERS = ("integer", "floating", "mixed-integer-float", "boolean", "decimal", "empty")
_MANY = 10  # integers that are each item's number once are ids; of fewer items it may be chance


class Content(NamedTuple):
    r"""Content of a modality.

    Attributes:
        ids: The items of the rows; :obj:`None` where they are those of the table of items.
        x: ``[n, F]``, float32, finite.
        columns: The names of the columns, where they have names.
    """

    ids: pd.Index | None
    x: Tensor
    columns: tuple[str, ...] = ()

    def rows_of(self, items: pd.Index) -> tuple[Tensor, Tensor]:
        r"""Content ``[len(items), F]``, zeros where there is none, and who has it, bool."""
        if self.ids is None:
            return self.x, torch.ones(len(items), dtype=torch.bool)
        row = torch.from_numpy(rows_of(self.ids, items))
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
    if features is not None and not isinstance(features, Mapping):
        raise ValueError(
            "'features' must map the names of modalities to content (got "
            f"{type(features).__name__}; in a command --features NAME=FILE)"
        )
    touched = touched.unique()
    return {
        name: _read(name, value, item, items, touched) for name, value in (features or {}).items()
    }


def _read(name: str, value: Any, item: str, items: pd.Index | None, touched: pd.Index) -> Content:
    what = f"features[{name!r}]"
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"{what}: the name of a modality must be a word such as 'image'")
    value = as_pandas(value)
    if isinstance(value, Mapping) and not is_sparse(value):
        named = ids(list(value), f"the index of {what}")
        value = pd.Series(list(value.values()), index=named, dtype=object)
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
    check_same_kind(index, f"the index of {what}", known, where)
    unknown = index[rows_of(index, known) < 0]
    if items is not None and len(unknown):
        raise ValueError(
            f"{what} has {len(unknown)} item(s) that 'items' lacks, such as {show(unknown[0])}"
            f"{difference(unknown, items)}; add their rows to 'items', or leave them out"
        )
    _check_overlap(index, what, touched, items is not None)
    return Content(index, _matrix(value, what, index), _names(value))


def _names(value: pd.DataFrame | pd.Series) -> tuple[str, ...]:
    r"""Names of columns; none where they are the numbers of the columns, or one stands twice."""
    if not isinstance(value, pd.DataFrame):
        return ()
    if value.shape[1] == 1 and holds_vectors(value.iloc[:, 0]):
        return ()
    names = tuple(map(str, value.columns))
    numbers = tuple(map(str, range(len(names))))
    return () if names == numbers or len({*names}) < len(names) else names


def _check_overlap(index: pd.Index, what: str, touched: pd.Index, listed: bool) -> None:
    r"""Refuses content of none of the items with interactions, and warns where it is of few.

    Items that are :obj:`listed` in a table may all be untouched, if not for how ids are written.
    """
    try:
        share = shared(index, f"the index of {what}", touched, "the items of 'interactions'")
    except ValueError:
        if not listed or difference(index, touched):
            raise
        share = 0.0
    if share < 0.5:
        warnings.warn(
            f"{what}: of the {len(index):,} items with content and the {len(touched):,} with "
            f"interactions only {share:.0%} of the fewer are in both, such as {show(index[0])} "
            f"here and {show(touched[0])} there: are their ids written alike?",
            stacklevel=5,
        )


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
