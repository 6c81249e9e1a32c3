r"""Columns of one's own tables, checked: ids, numbers, times and names of splits."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd

from gtc_pyg.datasets.exact_ids import exact_ids, show
from gtc_pyg.datasets.interaction_tables import SPLITS

_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")
_MOMENTS = ("datetime64", "datetime", "date", "period")


def as_pandas(table: Any) -> Any:
    r"""A table of another library that speaks Arrow (polars, DuckDB, pyarrow) as one of pandas.

    Integers with gaps stay integers, in a column of objects. Anything else is returned as it is.
    """
    if isinstance(table, pd.DataFrame) or not hasattr(table, "__arrow_c_stream__"):
        return table
    if not hasattr(table, "columns"):  # a Series
        return table
    import pyarrow as pa

    return pa.table(table).to_pandas(integer_object_nulls=True)


def column(frame: pd.DataFrame, name: str, argument: str, table: str) -> pd.Series:
    r"""A column, or a level of the index by that name, by the argument that names it."""
    if name not in frame.columns and name in frame.index.names:
        return pd.Series(frame.index.get_level_values(name))
    if name not in frame.columns:
        raise ValueError(
            f"{table!r} has no column {name!r} (it has {list(map(str, frame.columns))})"
            f"{hint(name, frame.columns)}; the argument {argument!r} names it"
        )
    found = frame[name]
    if isinstance(found, pd.DataFrame):
        raise ValueError(f"{table!r} has {found.shape[1]} columns {name!r}, expected one")
    return found.reset_index(drop=True)


def hint(name: object, known: object) -> str:
    r"""``'; did you mean ...?'`` where something known is nearly the name."""
    close = get_close_matches(str(name), [str(entry) for entry in known], 1)  # type: ignore[attr-defined]
    return f"; did you mean {close[0]!r}?" if close else ""


def ids(values: Any, what: str) -> pd.Index:
    r"""Ids of a table (:func:`~gtc_pyg.datasets.exact_ids.exact_ids`), none of them blank."""
    index = exact_ids(values, what)
    if pd.api.types.infer_dtype(index, skipna=False) != "string":
        return index
    bare = pd.Index([text.strip() for text in index.tolist()], dtype=object)
    if (blank := np.asarray(bare == "", dtype=bool)).any():
        raise ValueError(
            f"{what}, row {blank.argmax()} (from 0): the id is blank ({index[blank][0]!r}), "
            f"{blank.sum()} in all; drop these rows, or give them ids"
        )
    if (spaced := np.asarray(bare != index.astype(object), dtype=bool)).any():
        warnings.warn(
            f"{what}, row {spaced.argmax()} (from 0): the id {show(index[spaced][0])} has spaces "
            f"around it, {spaced.sum()} such in all; they are other ids than those without: "
            ".str.strip() takes spaces away",
            stacklevel=5,
        )
    return index


def numbers(values: pd.Series, what: str, positive: bool = False) -> np.ndarray:
    r"""Finite numbers, float64; by option positive ones."""
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind not in (*_NUMBERS, "boolean"):
        first = values.dropna().iloc[:1].tolist()
        raise ValueError(
            f"{what} must hold numbers (got {kind}, such as {first}): pandas.to_numeric makes them"
        )
    found = values.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(found)
    if positive:
        wrong |= ~(found > 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(
            f"{what}, row {row} (from 0): {found[row]}, expected a "
            f"{'positive ' if positive else ''}finite number; drop such rows, {wrong.sum()} in all"
        )
    return found


def times(values: pd.Series, what: str) -> np.ndarray:
    r"""Ranks ``0, 1, ...`` of moments, equal ones alike, int64."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(values.dtype.categories.dtype)
    kind = pd.api.types.infer_dtype(values, skipna=True)
    if kind not in (*_NUMBERS, *_MOMENTS, "empty"):
        raise ValueError(
            f"{what} must hold numbers or datetimes, which can be sorted (got {values.dtype}, such "
            f"as {show(values.iloc[0])}): {_remedy(values)}"
        )
    missing = values.isna().to_numpy()
    if missing.any():
        raise ValueError(
            f"{what}, row {missing.argmax()} (from 0): the time is missing, {missing.sum()} in "
            "all; drop these rows"
        )
    if kind in _NUMBERS:
        numbers(values, what)  # which are finite
    try:
        return values.rank(method="dense").to_numpy(dtype=np.int64) - 1
    except TypeError as error:  # days and moments, with and without a time zone
        raise ValueError(
            f"{what} must hold times of one kind ({error}): {_remedy(values)}"
        ) from None


def _remedy(values: pd.Series) -> str:
    words = pd.api.types.infer_dtype(values, skipna=False) == "string"
    if words and pd.to_numeric(values, errors="coerce").notna().all():
        return "pandas.to_numeric makes numbers of such text"
    return (
        "pandas.to_datetime makes datetimes of strings, with format='ISO8601' of such as "
        "'2025-01-31', else with a format such as '%d.%m.%Y', and with utc=True of one time zone"
    )


def split_labels(values: pd.Series, what: str) -> np.ndarray:
    r"""0, 1 and 2 for ``'train'``, ``'val'`` and ``'test'``, int64."""
    found = pd.Index(SPLITS).get_indexer(pd.Index(values.astype(str)))
    label = np.asarray(found, dtype=np.int64)
    if (label < 0).any():
        row = int((label < 0).argmax())
        value = values.iloc[row]
        raise ValueError(
            f"{what}, row {row} (from 0): {show(value)}, expected 'train', 'val' or 'test'"
            f"{hint(value, SPLITS)}"
        )
    return label
