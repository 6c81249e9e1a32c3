r"""One's own ids, whatever holds them: exactly what was given, or refused."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

KINDS = {"string": "strings", "integer": "integers"}
_WHOLE = 2**53  # from here on not every whole number is a float
_LONGEST = 200  # characters of an id that are looked at to find what two ids differ by


def show(value: object) -> str:
    r"""An entry of a table as one writes it; of a long one how it begins."""
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"


def as_list(ids: Any) -> list[Any]:
    r"""One id, or several in whatever holds them, as a list of Python values."""
    if isinstance(ids, str | bytes | np.datetime64 | np.timedelta64):
        return [ids]
    if _exact_below(ids) < _WHOLE:
        return list(exact_ids(ids, "ids").tolist())
    for name in ("to_pylist", "as_py", "tolist", "to_list"):  # Arrow, NumPy and pandas, polars
        if callable(convert := getattr(ids, name, None)):
            ids = convert()
            break
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        return [ids]
    return list(ids)


def exact_ids(values: Any, what: str) -> pd.Index:
    r"""Ids as an index, each exactly as it was given.

    A table's integers and strings keep their type, categories become what they stand for. Python
    integers become int64, or uint64 where one needs it. Floats and decimals are ids where each is
    exactly one integer, which for floats means below :math:`2^{53}`.

    Args:
        values: One id or several: a Series, index or array of any library, a tensor, or anything
            that can be listed.
        what: Names them in messages.

    Raises:
        ValueError: For a missing id, several levels, another type or mixed types, a number that is
            no integer, an integer outside 64 bits, or a float that several integers have become.
    """
    index = _as_index(values, what)
    try:
        missing = np.asarray(index.isna())
    except InvalidOperation:  # of a signalling NaN
        raise ValueError(f"{what} hold a Decimal that is no number (sNaN)") from None
    kind = pd.api.types.infer_dtype(index, skipna=True) if len(index) else "string"
    if kind in ("floating", "mixed-integer-float", "decimal", "mixed-integer"):
        index = _whole_numbers(index, missing, _exact_below(values), what)
    if missing.any():
        raise ValueError(
            f"{what}, row {missing.argmax()} (from 0): the id is missing ({index[missing][0]}), "
            f"{missing.sum()} in all; drop these rows, or give them ids"
        )
    kind = pd.api.types.infer_dtype(index, skipna=False) if len(index) else "string"
    if kind not in KINDS:
        raise ValueError(f"{what}: {_wrong(index, kind)}")
    if kind == "integer" and index.dtype == object:
        return _integers(index, what)
    return index


def rows_of(ids: pd.Index, known: pd.Index) -> np.ndarray:
    r"""The row of each id among the known ones, -1 where it is none of them, int64 ``[N]``.

    Args:
        ids: As of :func:`exact_ids`.
        known: The same, none twice; :func:`lookup` of it, kept, makes further calls fast.
    """
    return np.asarray(lookup(known).get_indexer(lookup(ids)), dtype=np.int64)


def lookup(ids: pd.Index) -> pd.Index:
    r"""The same ids in one of three types: int64, uint64 where one needs it, or objects."""
    dtype = getattr(ids.dtype, "numpy_dtype", ids.dtype)  # of nullable and Arrow's integers
    if not isinstance(dtype, np.dtype) or dtype.kind not in "iu":
        return ids if ids.dtype == object else ids.astype(object)
    if dtype == np.int64:
        return ids if ids.dtype == np.int64 else ids.astype(np.int64)
    if dtype == np.uint64 and len(ids) and int(ids.max()) > np.iinfo(np.int64).max:
        return ids.astype(np.uint64)
    return ids.astype(np.int64)


def appended(known: pd.Index, more: pd.Index, what: str) -> pd.Index:
    r"""Known ids and others below, in the type of the known ones where that holds all.

    Raises:
        ValueError: Where no integer type of 64 bits holds all.
    """
    if not len(known) or not len(more):
        return more if len(more) else known
    dtype = getattr(known.dtype, "numpy_dtype", known.dtype)
    integers = isinstance(dtype, np.dtype) and dtype.kind in "iu"
    held = np.iinfo(dtype) if integers else None
    if held is not None and held.min <= int(more.min()) and int(more.max()) <= held.max:
        return known.append(more.astype(known.dtype))
    if not integers and object not in (known.dtype, more.dtype):
        return known.append(more.astype(known.dtype))
    every = pd.Index([*known.tolist(), *more.tolist()], dtype=object)
    return _integers(every, what) if integers else every


def check_same_kind(index: pd.Index, what: str, other: pd.Index, other_what: str) -> None:
    r"""Refuses integers here and strings there, which would never match."""
    kinds = [KINDS[pd.api.types.infer_dtype(x, skipna=False)] for x in (index, other) if len(x)]
    if len(set(kinds)) > 1:
        raise ValueError(
            f"{what} holds {kinds[0]} such as {show(index[0])}, {other_what} holds {kinds[1]} "
            f"such as {show(other[0])}; expected ids of one type: astype(str) or astype('int64') "
            "changes them"
        )


def shared(index: pd.Index, what: str, other: pd.Index, other_what: str) -> float:
    r"""The share of the smaller set of ids that the other has, too.

    Args:
        index: None twice.
        what: Names them in messages.
        other: None twice.
        other_what: Names the others.

    Raises:
        ValueError: Where they have none in common; shows two of each, and what they differ by.
    """
    small, large = sorted((index, other), key=len)
    if not len(small):
        return 1.0
    share = float((rows_of(small, large) >= 0).mean())
    if share > 0:
        return share
    raise ValueError(
        f"{what} and {other_what} have no id in common: {_two(index)} here, {_two(other)} there"
        f"{difference(index, other)}; make them the same"
    )


def difference(index: pd.Index, other: pd.Index) -> str:
    r"""``'; they differ by ...'`` where a change of all ids makes some meet, else ``''``."""
    words = [[str(x)[:_LONGEST] for x in ids[:10_000].tolist()] for ids in (index, other)]
    changes = dict(_CHANGES)
    for here, there in (words, words[::-1]):
        for by in ("prefix", "suffix"):
            if more := _affix(here, set(there), by):
                changes[f"the {by} {more!r}"] = _without(more, by)
    for size in (1, 2):
        for names in combinations(changes, size):
            found = [{_changed(x, changes, names) for x in ids} for ids in words]
            if found[0] & found[1]:
                return f"; they differ by {' and '.join(names)}"
    return ""


_CHANGES: Mapping[str, Callable[[str], str]] = {
    "upper and lower case": str.casefold,
    "spaces around them": str.strip,
    "leading zeros": lambda x: x.lstrip("0") or "0",
    "a decimal point ('1.0' for '1')": lambda x: x.removesuffix(".0"),
    "how accents and the like are encoded (unicodedata.normalize('NFC', x))": lambda x: (
        unicodedata.normalize("NFC", x)
    ),
}


def _changed(x: str, changes: Mapping[str, Callable[[str], str]], names: Iterable[str]) -> str:
    for name in names:
        x = changes[name](x)
    return x


def _without(more: str, by: str) -> Callable[[str], str]:
    return lambda x: x.removeprefix(more) if by == "prefix" else x.removesuffix(more)


def _affix(longer: list[str], shorter: set[str], by: str) -> str:
    """What several of the longer ids have before, or behind, one of the shorter ones."""
    votes: Counter[str] = Counter()
    for x in longer[:1000]:
        for at in range(1, len(x)):
            more, rest = (x[:at], x[at:]) if by == "prefix" else (x[at:], x[:at])
            if rest in shorter:
                votes[more] += 1
    more, times = (votes.most_common(1) or [("", 0)])[0]
    return "" if times < 2 or more.isdigit() else more


def _two(index: pd.Index) -> str:
    return " and ".join(show(x) for x in index[:2].tolist())


def _exact_below(values: Any) -> float:
    r"""Below this every whole number is one of these floats; infinity where they are no floats."""
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, torch.dtype):
        return 2 / torch.finfo(dtype).eps if dtype.is_floating_point else math.inf
    dtype = getattr(dtype, "numpy_dtype", dtype)
    if isinstance(dtype, np.dtype) and dtype.kind == "f":
        return min(_WHOLE, 2 / float(np.finfo(dtype).eps))
    return math.inf


def _as_index(values: Any, what: str) -> pd.Index:
    if isinstance(values, pd.DataFrame | Mapping):
        raise ValueError(f"{what}: one id or several are expected (got a table or mapping)")
    if isinstance(values, Tensor):
        if values.layout != torch.strided or values.is_meta or values.is_quantized:
            raise ValueError(
                f"{what} must be a plain tensor of whole numbers (got {values.layout})"
            )
        values = values.detach().cpu()
        values = values.double().numpy() if values.is_floating_point() else values.numpy()
    if isinstance(values, np.ndarray | np.generic):
        values = np.asarray(values)
        if values.ndim > 1:
            raise ValueError(f"{what} must be [N], one id for each row (got {list(values.shape)})")
        values = values.reshape(-1)
        values = values.astype(np.float64) if values.dtype.kind == "f" else values
    if isinstance(values, pd.MultiIndex):
        raise ValueError(f"{what} has {values.nlevels} levels, expected one id for each row")
    if isinstance(values, pd.Series | pd.Index | pd.api.extensions.ExtensionArray | np.ndarray):
        if values.dtype == np.float16:  # which pandas has no index of
            values = values.astype(np.float32)
        try:
            index = pd.Index(values, tupleize_cols=False)
        except UnicodeEncodeError:  # half a character is text for Python, not for Arrow
            index = pd.Index(values, dtype=object)
        if isinstance(index.dtype, pd.CategoricalDtype):
            return index.astype(object if index.hasnans else index.dtype.categories.dtype)
        if isinstance(index.dtype, pd.SparseDtype):
            return pd.Index(np.asarray(index))
        if pd.api.types.infer_dtype(index, skipna=True) != "unknown-array":
            return index
        values = index.tolist()  # Arrow's dictionaries
    ids = pd.Index(as_list(values), dtype=object, tupleize_cols=False)
    if pd.api.types.infer_dtype(ids, skipna=False) not in KINDS:
        ids = pd.Index([_scalar(x) for x in ids], dtype=object, tupleize_cols=False)
    if pd.api.types.infer_dtype(ids, skipna=False) == "string":
        try:
            return pd.Index(ids.tolist())
        except UnicodeEncodeError:
            return ids
    return ids


def _scalar(value: Any) -> Any:
    r"""What an array of no dimension, or a scalar of Arrow's, holds."""
    zero = getattr(value, "ndim", None) == 0 and not isinstance(value, np.generic)
    return as_list(value)[0] if zero or hasattr(value, "as_py") else value


def _whole_numbers(index: pd.Index, missing: np.ndarray, below: float, what: str) -> pd.Index:
    r"""Floats and decimals that are integers as such, where all are; missing ones stay."""
    out = index.astype(object).to_numpy(copy=True)
    for row, value in enumerate(out):
        if missing[row] or (isinstance(value, int | np.integer) and not isinstance(value, bool)):
            continue
        if isinstance(value, Decimal):
            whole = value.is_finite() and -(2**64) < value < 2**64 and value % 1 == 0
        else:
            whole = isinstance(value, float | np.floating) and float(value).is_integer()
        if not whole:
            return index
        limit = math.inf if isinstance(value, Decimal) else min(below, _exact_below(value), _WHOLE)
        if abs(value) >= limit:
            raise ValueError(
                f"{what}, row {row} (from 0): {show(value)} is a float beyond 2**"
                f"{math.log2(limit):.0f}, where several integers become the same float: read the "
                "file with dtype=str for the ids, or cast them to text in the query"
            )
        out[row] = int(value)
    return pd.Index(out, dtype=object)


def _integers(index: pd.Index, what: str) -> pd.Index:
    r"""Python integers as int64, or as uint64 where one needs it."""
    low, high = int(index.min()), int(index.max())
    if low >= -(2**63) and high < 2**63:
        return index.astype("int64")
    if low >= 0 and high < 2**64:
        return index.astype("uint64")
    least = -(2**63) if low < 0 else 0
    row = next(i for i, value in enumerate(index) if not least <= value < least + 2**64)
    beside = f" beside {low}" if low < 0 < index[row] else ""
    raise ValueError(
        f"{what}, row {row} (from 0): {show(index[row])} is no integer of 64 bits{beside}; "
        ".astype(str) makes ids of any length"
    )


def _wrong(index: pd.Index, kind: str) -> str:
    other = next((x for x in index if type(x) is not type(index[0])), None)
    if kind.startswith("mixed") and other is not None:
        return (
            f"ids of mixed types, such as {show(index[0])} and {show(other)}; expected strings "
            "alone or integers alone: astype(str) makes strings of all"
        )
    shown = (
        next((x for x in index if not float(x).is_integer()), 0) if kind == "floating" else index[0]
    )
    remedy = ".str.decode('utf-8')" if kind == "bytes" else ".astype(str)"
    return (
        f"ids must be strings or integers (got {kind}, such as {show(shown)}); {remedy} makes "
        "such ids"
    )
