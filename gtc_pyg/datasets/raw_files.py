r"""Readers of the published file formats; each one refuses what it does not understand.

Nothing here runs code from a file: pickles may name SciPy and NumPy array types alone, and those
of SciPy become an inert holder, so no SciPy is needed; ``.npy`` and ``.npz`` refuse objects.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_INTER_COLUMNS = ("userID", "itemID", "x_label")
_NUMPY_GLOBALS = {
    ("multiarray", "_reconstruct"),
    ("numeric", "_frombuffer"),
}


class InterTable(NamedTuple):
    r"""The content of an ``.inter`` file: one entry per interaction.

    Attributes:
        edge_index: ``[2, num_interactions]``, int64: users and items.
        label: ``[num_interactions]``, int64: 0 train, 1 validation, 2 test.
        line: ``[num_interactions]``, int64: the line of the file, the header being line 1.
    """

    edge_index: Tensor
    label: Tensor
    line: Tensor


def require_files(*paths: str) -> None:
    r"""Raises :class:`FileNotFoundError` naming file and folder where a file is missing."""
    for path in paths:
        if not os.path.isfile(path):
            folder, name = os.path.split(path)
            raise FileNotFoundError(f"missing file {name!r}: expected in the folder {folder}")


def read_inter(path: str) -> InterTable:
    r"""Reads a tab-separated ``.inter`` file with ``userID``, ``itemID`` and ``x_label``.

    Other columns (``rating``, ``timestamp``) are ignored, and so are blank lines.

    Raises:
        ImportError: If pandas is missing.
        FileNotFoundError: If the file is missing.
        ValueError: If a column is missing, an id is not a non-negative integer, or a label is
            not 0, 1 or 2; the message names file, line, column and value.
    """
    require_files(path)
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            'reading .inter files needs pandas: pip install "gtc-pyg[data]"'
        ) from error
    try:
        frame = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, skip_blank_lines=False, quoting=3
        ).fillna("")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a tab-separated table with a header ({error})") from error
    for column in _INTER_COLUMNS:
        if column not in frame.columns:
            raise ValueError(
                f"{path}: missing column {column!r}; expected {', '.join(_INTER_COLUMNS)}, "
                f"found {', '.join(map(str, frame.columns))}"
            )
    frame = frame[list(_INTER_COLUMNS)]
    frame = frame[(frame != "").any(axis=1)]
    expected = ("a non-negative integer", "a non-negative integer", "0, 1 or 2")
    patterns = ("[0-9]{1,18}", "[0-9]{1,18}", "[012]")
    columns = []
    for column, pattern, what in zip(_INTER_COLUMNS, patterns, expected, strict=True):
        bad = ~frame[column].str.fullmatch(pattern).to_numpy(dtype=bool)
        if bad.any():
            first = int(bad.argmax())
            raise ValueError(
                f"{path}, line {int(frame.index[first]) + 2}: {column} is "
                f"{frame[column].iloc[first]!r}, expected {what}"
            )
        columns.append(torch.from_numpy(frame[column].astype("int64").to_numpy(copy=True)))
    line = torch.from_numpy(frame.index.to_numpy(dtype=np.int64) + 2)
    return InterTable(torch.stack(columns[:2]), columns[2], line)


def read_npy(path: str) -> Tensor:
    r"""Reads numeric content from an ``.npy`` file as float32.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is no ``.npy`` file, is truncated, or holds objects, text or complex
            numbers.
    """
    require_files(path)
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: not a numeric .npy file ({error})") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds {array.dtype}, expected real numbers")
    with np.errstate(over="ignore"):  # what overflows becomes inf, which validation refuses
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def read_csr_graph(path: str) -> tuple[Tensor, Tensor, int]:
    r"""Reads a square SciPy CSR matrix of neighbours from an ``.npz`` file.

    Returns:
        tuple: ``edge_index`` ``[2, num_edges]`` with the neighbour (column) as source and the
        row's own item as destination, ``edge_weight`` ``[num_edges]`` and the number of rows.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is no CSR matrix, not square, has an index out of range, or has weights
            that are not finite.
    """
    require_files(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            part = {key: archive[key] for key in archive.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: not an .npz file of plain arrays ({error})") from error
    missing = {"format", "shape", "indptr", "indices", "data"} - part.keys()
    if missing:
        raise ValueError(f"{path}: not a SciPy CSR matrix, missing {', '.join(sorted(missing))}")
    kind = part["format"].item()
    kind = kind.decode("ascii", "replace") if isinstance(kind, bytes) else kind
    if kind != "csr":
        raise ValueError(f"{path}: format is {kind!r}, expected 'csr'")
    for key in ("shape", "indptr", "indices"):
        if part[key].dtype.kind not in "iu" or part[key].ndim != 1:
            raise ValueError(f"{path}: {key!r} is {part[key].dtype}, expected 1-D integers")
    shape, indptr, indices, weight = (part[key] for key in ("shape", "indptr", "indices", "data"))
    if shape.size != 2 or shape[0] != shape[1]:
        raise ValueError(f"{path}: shape is {shape.tolist()}, expected a square matrix")
    num_rows = int(shape[0])
    count = np.diff(indptr.astype(np.int64))
    if (
        indptr.size != num_rows + 1
        or indptr[0] != 0
        or indptr[-1] != indices.size
        or (count < 0).any()
    ):
        raise ValueError(
            f"{path}: 'indptr' does not describe {num_rows} rows of {indices.size} entries"
        )
    outside = (indices < 0) | (indices >= num_rows)
    if outside.any():
        raise ValueError(
            f"{path}: 'indices' holds {indices[outside.argmax()]}, expected 0 to {num_rows - 1}"
        )
    if weight.shape != indices.shape or weight.dtype.kind not in "fiub":
        raise ValueError(f"{path}: 'data' does not hold one real number per entry")
    if not np.isfinite(weight).all():
        raise ValueError(f"{path}: 'data' holds {weight[~np.isfinite(weight)][0]}, expected finite")
    row = np.repeat(np.arange(num_rows, dtype=np.int64), count)
    edge_index = torch.from_numpy(np.stack([indices.astype(np.int64), row]))
    return edge_index, torch.from_numpy(weight.astype(np.float32)), num_rows


class _SparseMatrix:
    r"""Takes the state of a pickled SciPy matrix and does nothing with it."""

    state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _CooMatrix(_SparseMatrix):
    pass


class _CsrMatrix(_SparseMatrix):
    pass


_SPARSE_TYPES = {
    "coo_matrix": _CooMatrix,
    "coo_array": _CooMatrix,
    "csr_matrix": _CsrMatrix,
    "csr_array": _CsrMatrix,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        package, _, rest = module.partition(".")
        if package == "scipy" and rest.startswith("sparse") and name in _SPARSE_TYPES:
            return _SPARSE_TYPES[name]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        root, _, leaf = module.rpartition(".")
        if root in ("numpy.core", "numpy._core") and (leaf, name) in _NUMPY_GLOBALS:
            found: Any = np._core.multiarray if leaf == "multiarray" else np._core.numeric  # type: ignore[attr-defined]
            return getattr(found, name)
        raise pickle.UnpicklingError(
            f"names the forbidden global {f'{module}.{name}'!r}; "
            "expected SciPy and NumPy array types alone"
        )


def read_sparse_pickle(path: str) -> tuple[Tensor, tuple[int, int]]:
    r"""Reads a pickled SciPy COO or CSR matrix; entries of value zero are dropped.

    Returns:
        tuple: ``edge_index`` ``[2, num_entries]``, int64 (rows and columns), and the shape.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the pickle names anything but array types (the message names what), is
            truncated, or holds indices outside its shape.
    """
    require_files(path)
    try:
        with open(path, "rb") as file:
            matrix = _ArrayUnpickler(file).load()
    except Exception as error:  # a hostile stream can raise anything
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(matrix, _SparseMatrix) or not isinstance(
        getattr(matrix, "state", None), dict
    ):
        raise ValueError(f"{path}: holds {type(matrix).__name__}, expected a SciPy matrix")
    state = matrix.state
    try:
        num_rows, num_cols = (int(size) for size in state["_shape"])
        if isinstance(matrix, _CsrMatrix):
            row = np.repeat(np.arange(num_rows), np.diff(state["indptr"]))
            col = state["indices"]
        else:
            row, col = state["coords"] if "coords" in state else (state["row"], state["col"])
        keep = np.asarray(state["data"] != 0)
        index = np.stack([row, col])
        if index.dtype.kind not in "iu" or keep.shape != index.shape[1:]:
            raise ValueError("rows, columns and values do not match")
        index = index[:, keep].astype(np.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a sparse matrix of two dimensions ({error!r})") from error
    for axis, (name, size) in enumerate((("row", num_rows), ("column", num_cols))):
        outside = (index[axis] < 0) | (index[axis] >= size)
        if outside.any():
            raise ValueError(
                f"{path}: {name} {index[axis][outside.argmax()]} is outside the matrix, "
                f"expected 0 to {size - 1}"
            )
    return torch.from_numpy(index), (num_rows, num_cols)
