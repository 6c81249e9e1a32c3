r"""Content as one table of numbers, however it is given."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from gtc_pyg.datasets.frame_columns import show

MOST_DENSE = 2**32  # bytes that sparse content may take when it is made dense
_VECTOR = re.compile(
    r"\s*(?:(?:tensor|array)\()?[\[({]([^\[\](){}]*)[\])}](?:,\s*dtype=[\w.]+)?\)?\s*", re.DOTALL
)
_OPENING = ("[", "(", "{", "array(", "tensor(")
_SCALAR = re.compile(r"\b(?:np|numpy)\.\w+\(([^()]*)\)")


def is_sparse(value: Any) -> bool:
    r"""Whether a value is one of SciPy's sparse matrices, of which some are mappings."""
    return hasattr(value, "nnz") and hasattr(value, "toarray")


def holds_vectors(entries: pd.Series) -> bool:
    r"""Whether a column holds a vector for each row: a list, an array, or one written as text."""
    first = next((entry for entry in entries if not _is_missing(entry)), None)
    if isinstance(first, str):
        return _parsed(first) is not None
    return _is_vector(first) or isinstance(first, bytes)


def numbers_of(value: Any, what: str, index: pd.Index | None = None) -> np.ndarray:
    r"""Content as numbers ``[n, F]``, which may not be finite.

    Args:
        value: An array, tensor (of any precision, with a gradient or sparse), SciPy's sparse matrix
            or nested list; a DataFrame of numbers, or of one column of vectors; or a Series or list
            of vectors. A vector may be written as text, ``"[0.1, 0.2]"``.
        what: Names the content in messages.
        index: The items of the rows, for messages; their numbers where ``None``.

    Raises:
        ValueError: For what is no table of numbers. The message says what to do.
    """
    if isinstance(value, pd.DataFrame):
        if value.shape[1] == 1 and holds_vectors(value.iloc[:, 0]):
            value = value.iloc[:, 0]
        else:
            return _shaped(_of_frame(value, what), what)
    if isinstance(value, pd.Series):
        return _stack(value, what, index)
    found = value if isinstance(value, list | tuple) else _array(value, what)
    if isinstance(found, list | tuple) or (found.dtype == object and found.ndim == 1):
        return _stack(found, what, index)
    return _shaped(found, what)


def _array(value: Any, what: str) -> np.ndarray:
    r"""What is an array already, dense and as numbers; objects where it holds no numbers."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = value.dequantize() if value.is_quantized else value
        value = value.float() if value.is_floating_point() else value
        _check_size(value, value.is_sparse or value.is_sparse_csr, what)
        return value.to_dense().numpy()
    if is_sparse(value):
        _check_size(value, True, what)
        return np.asarray(value.toarray())
    if np.ma.isMaskedArray(value):
        if np.ma.getmaskarray(value).any():
            raise ValueError(
                f"{what} is a masked array, of which some entries are masked: leave out the items "
                "that lack it, or give what stands for it, by .filled(value)"
            )
        return np.asarray(value.data)
    return np.asarray(value)


def _check_size(value: Any, sparse: bool, what: str) -> None:
    size = 8.0 * np.prod(value.shape, dtype=np.float64)
    if sparse and size > MOST_DENSE:
        raise ValueError(
            f"{what} is sparse, {list(value.shape)}, and would take {size / 2**30:,.1f} GiB as a "
            "table: reduce it first, u, s, _ = scipy.sparse.linalg.svds(x, 256), and give u * s"
        )


def _of_frame(frame: pd.DataFrame, what: str) -> np.ndarray:
    plain = True
    for name, entries in frame.items():
        if entries.dtype.kind in "biuf":
            plain &= isinstance(entries.dtype, np.dtype | pd.SparseDtype)
            continue
        plain = False
        wrong = next((entry for entry in entries if not _is_number(entry)), None)
        if wrong is None:
            continue
        if holds_vectors(entries):
            raise ValueError(
                f"{what} has a column {name!r} of vectors beside others, "
                f"{[other for other in frame.columns if other != name][:3]}: give it alone, by "
                f"item id, as a modality of its own, and the others as another"
            )
        if isinstance(wrong, str) and wrong.lstrip().startswith(_OPENING):
            raise ValueError(f"{what}, column {name!r}, {_of_text(wrong)}")
        raise ValueError(f"{what} must hold numbers, [n, F] (column {name!r} holds {show(wrong)})")
    return np.asarray(frame) if plain else frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _stack(rows: Iterable[Any], what: str, index: pd.Index | None) -> np.ndarray:
    rows = [_row(entry, what, index, i) for i, entry in enumerate(rows)]
    if rows and all(row.ndim == 0 for row in rows):
        raise ValueError(f"{what} holds one number for each item: give a table, .to_frame()")
    shapes = [row.shape for row in rows]
    odd = next((i for i, shape in enumerate(shapes) if len(shape) != 1 or shape != shapes[0]), None)
    if odd is not None:
        expected = "a vector of numbers"
        if len(shapes[0]) == 1:
            expected = f"a vector as long as that of the first item (shape {list(shapes[0])})"
        raise ValueError(
            f"{what}, {_item(index, odd)}: shape {list(shapes[odd])}, expected {expected}"
        )
    return _shaped(np.stack(rows) if rows else np.empty((0, 0), dtype=np.float32), what)


def _row(entry: Any, what: str, index: pd.Index | None, row: int) -> np.ndarray:
    if isinstance(entry, str):
        found = _parsed(entry)
        if found is None:
            raise ValueError(f"{what} {_of_text(entry)}")
        return found
    if _is_missing(entry):
        raise ValueError(
            f"{what} has nothing for {_item(index, row)} ({entry!r}): leave out the items that "
            "lack it, by dropna()"
        )
    if isinstance(entry, bytes):
        raise ValueError(
            f"{what}, {_item(index, row)} holds bytes: give numbers, "
            "numpy.frombuffer(entry, dtype) with the dtype that they were written in"
        )
    found = _array(entry, what)
    return found.reshape(-1) if is_sparse(entry) else found


def _shaped(found: np.ndarray, what: str) -> np.ndarray:
    if found.dtype == object:
        try:
            found = found.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{what} must hold numbers, [n, F] ({error})") from error
    if found.dtype.kind not in "biuf":
        raise ValueError(f"{what} must hold numbers, [n, F] (dtype {found.dtype})")
    if found.ndim != 2 or found.shape[1] == 0:
        raise ValueError(f"{what} must be [n, F], one row per item (got {list(found.shape)})")
    return found


def _parsed(text: str) -> np.ndarray | None:
    r"""The vector that a text is, as lists, NumPy, PyTorch or a database write it."""
    found = _VECTOR.fullmatch(_SCALAR.sub(r"\1", text))
    if found is None:
        return None
    try:
        return np.array(found[1].replace(",", " ").split(), dtype=np.float64)
    except ValueError:
        return None


def _of_text(entry: str) -> str:
    if not entry.lstrip().startswith(_OPENING):
        return (
            f"holds text such as {show(entry)}: encode it first, by gtc_pyg.datasets.encode or "
            "gtc_pyg.transforms.tfidf_embedding"
        )
    if "..." in entry:
        return (
            f"holds vectors that were cut short when they became text, {show(entry)}: write the "
            "table anew with whole vectors, by to_parquet"
        )
    return f"holds text that is no vector of numbers, {show(entry)}: expected such as '[0.1, 0.2]'"


def _item(index: pd.Index | None, row: int) -> str:
    return f"row {row}" if index is None else f"item {show(index[row])}"


def _is_vector(entry: Any) -> bool:
    return isinstance(entry, Tensor) or is_sparse(entry) or np.ndim(entry) > 0


def _is_missing(entry: Any) -> bool:
    return not _is_vector(entry) and bool(pd.isna(entry))


def _is_number(entry: Any) -> bool:
    try:
        return not isinstance(entry, complex) and float(entry) is not None
    except (TypeError, ValueError):
        return entry is None or entry is pd.NA
