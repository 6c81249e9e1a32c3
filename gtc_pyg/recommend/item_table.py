r"""What there is to show of the items: columns of any kind, kept exactly or refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from gtc_pyg.datasets.exact_ids import exact_ids, lookup, rows_of
from gtc_pyg.datasets.frame_columns import as_pandas

_OURS = ("item", "value")  # columns of the tables that show items
_KINDS = b"gtc_pyg.columns"  # in a file's schema: each column's type


def without_ids(table: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    r"""What there is to show, by row: no column of the ids, and every name a text of its own.

    Several levels of columns become one, joined by ``_``. ``item`` and ``value``, which tables of
    answers have, and a name that is there already get ``(column)`` behind it.

    Args:
        table: One row for each item.
        ids: The items' ids.
    """
    columns: dict[str, pd.Series] = {}
    for position, label in enumerate(table.columns):
        column = table.iloc[:, position].reset_index(drop=True)
        if _are_ids(column, ids):
            continue
        name = "_".join(map(str, label)) if isinstance(label, tuple) else str(label)
        while name in columns or name in _OURS:
            name += " (column)"
        if column.dtype == object:
            column = pd.Series([_without_gaps(entry) for entry in column], dtype=object)
        columns[name] = column.rename(name)
    return pd.DataFrame(columns, index=range(len(table)))


def below(table: pd.DataFrame, more: pd.DataFrame | None, ids: pd.Index) -> pd.DataFrame:
    r"""A table with the rows of other items below: its columns, empty where the others lack them.

    Args:
        table: What there is.
        more: Further rows, in the order of ``ids`` or with them as index, in the column ``item`` or
            in one of their name; :obj:`None` where there is nothing to show.
        ids: Of the further items.

    Raises:
        ValueError: For columns that the table lacks and that are not the ids.
    """
    more = pd.DataFrame(index=range(len(ids))) if more is None else _ordered(as_pandas(more), ids)
    more = without_ids(more, ids)
    unknown = [str(name).removesuffix(" (column)") for name in more if name not in table]
    if unknown:
        raise ValueError(
            f"'items' has the columns {unknown}, expected some of {list(table.columns)} and ids in "
            "the order of 'ids'"
        )
    empty = pd.Series([None] * len(ids), dtype=object)
    columns = {name: _joined(table[name], more.get(name, empty)) for name in table.columns}
    return pd.DataFrame(columns, index=range(len(table) + len(ids)))


def to_arrow(table: pd.DataFrame, what: str) -> pa.Table:
    r"""A table of named columns as Arrow's, of which :func:`from_arrow` makes an equal one.

    Args:
        table: Any columns.
        what: Names the table in messages.

    Raises:
        ValueError: For a column that would come back as something else; says which, and why.
    """
    columns, kinds = [], []
    for name, column in table.items():
        try:
            values = pa.array(column, from_pandas=True)
            columns.append(values.combine_chunks() if hasattr(values, "chunks") else values)
            kinds.append(_kind(column))
            found = from_arrow(_arrow([str(name)], columns[-1:], kinds[-1:]))
            same = _same(column, found.iloc[:, 0])
            why = "" if same else f"{column.dtype} would come back as something else"
        except Exception as error:  # Arrow's are of many types
            why = str(error) or type(error).__name__
        if why:
            raise ValueError(
                f"the {what}' column {name!r} cannot be saved ({why:.300}): give it one type of "
                "plain values, by astype(str) say"
            )
    return _arrow(list(map(str, table.columns)), columns, kinds)


def from_arrow(table: pa.Table) -> pd.DataFrame:
    r"""The table that :func:`to_arrow` was given."""
    if _KINDS not in (metadata := table.schema.metadata or {}):
        return table.to_pandas()
    kinds = json.loads(metadata[_KINDS])
    columns = {
        name: _restored(column, kind)
        for name, column, kind in zip(table.column_names, table.columns, kinds, strict=True)
    }
    return pd.DataFrame(columns, index=range(table.num_rows))


def _without_gaps(entry: Any) -> Any:
    r"""Whatever stands for a missing entry (NaN, NaT, NA) as None, in lists and mappings, too."""
    if isinstance(entry, list):
        return [_without_gaps(x) for x in entry]
    if isinstance(entry, dict):
        return {key: _without_gaps(x) for key, x in entry.items()}
    return None if np.ndim(entry) == 0 and pd.isna(entry) is True else entry


def _are_ids(column: pd.Series, ids: pd.Index) -> bool:
    if len(column) != len(ids):
        return False
    try:
        found = exact_ids(column, "ids")
    except (ValueError, TypeError):
        return False
    return bool((lookup(found) == lookup(ids)).all()) if len(ids) else False


def _ordered(more: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    r"""Rows in the order of the ids, where a table has them."""
    named = [name for name in ("item", ids.name) if name is not None and name in more.columns]
    holders: list[Any] = [more[name] for name in named if isinstance(more[name], pd.Series)]
    if not isinstance(more.index, pd.RangeIndex | pd.MultiIndex):
        holders.append(more.index)
    for holder in holders:
        try:
            found = exact_ids(holder, "ids")
        except (ValueError, TypeError):
            continue
        if len(found) == len(ids) and found.is_unique and (rows := rows_of(ids, found)).min() >= 0:
            return more.iloc[rows]
    return more


def _joined(column: pd.Series, more: pd.Series) -> pd.Series:
    r"""A column and further entries, in its type where that holds them."""
    dtype: Any = column.dtype
    if more.isna().any() and isinstance(dtype, np.dtype) and dtype.kind in "iub":
        dtype = {"i": "Int64", "u": "UInt64", "b": "boolean"}[dtype.kind]  # 1999 stays what it is
    try:
        held = more.astype(dtype)
        exact = held.dropna().tolist() == more.dropna().tolist()
    except Exception:  # those of pandas, NumPy and Arrow are of many types
        exact = False
    if exact:
        return pd.concat([column.astype(dtype), held], ignore_index=True)
    return pd.Series([*column.tolist(), *more.tolist()], dtype=object)


def _arrow(names: list[str], columns: list[Any], kinds: list[str]) -> pa.Table:
    table = pa.table(columns, names=names)
    return table.replace_schema_metadata({_KINDS: json.dumps(kinds).encode()})


def _kind(column: pd.Series) -> str:
    return "arrow" if isinstance(column.dtype, pd.ArrowDtype) else str(column.dtype)


def _restored(column: Any, kind: str) -> pd.Series:
    if kind == "object":
        return pd.Series(column.to_pylist(), dtype=object)
    if kind == "arrow":
        return pd.Series(pd.arrays.ArrowExtensionArray(column))
    dtype: Any = pd.api.types.pandas_dtype(kind)
    if isinstance(dtype, np.dtype) and dtype.kind not in "biufmM":  # no column's: of any width
        raise ValueError(f"a column of the type {kind!r:.80}")
    if hasattr(dtype, "__from_arrow__"):
        return pd.Series(dtype.__from_arrow__(column))
    found = column.to_pandas()
    if found.dtype == dtype:
        return found
    restored = found.astype(dtype)
    if isinstance(dtype, np.dtype) and dtype.kind in "iu" and not (restored == found).all():
        raise ValueError(f"a column of the type {kind!r:.80} that does not hold its values")
    return restored


def _same(a: pd.Series, b: pd.Series) -> bool:
    if a.dtype != b.dtype or len(a) != len(b):
        return False
    if isinstance(a.dtype, pd.CategoricalDtype):
        same = a.cat.categories.equals(b.cat.categories) and a.cat.ordered == b.cat.ordered
        return same and bool((a.cat.codes == b.cat.codes).all())
    if a.dtype == object or isinstance(a.dtype, pd.ArrowDtype):
        return all(map(_equal, a.tolist(), b.tolist()))
    return a.reset_index(drop=True).equals(b)


def _equal(x: Any, y: Any) -> bool:
    x, y = (v.item() if isinstance(v, np.generic) else v for v in (x, y))
    if isinstance(x, list) and isinstance(y, list):
        return len(x) == len(y) and all(map(_equal, x, y))
    if isinstance(x, Mapping) and isinstance(y, Mapping):
        return list(x) == list(y) and all(_equal(x[key], y[key]) for key in x)
    if np.ndim(x) or np.ndim(y):
        return False
    if pd.isna(x) or pd.isna(y):
        return bool(pd.isna(x) and pd.isna(y))
    alike = type(x) is type(y) or (isinstance(x, datetime) and isinstance(y, datetime))
    return alike and bool(x == y)
