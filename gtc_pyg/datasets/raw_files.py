r"""Readers of the published file formats; each one refuses what it does not understand.

Nothing here runs code from a file: pickles are read by a machine that knows sparse matrices alone
(:mod:`~gtc_pyg.datasets.sparse_pickle`), ``.npy`` and ``.npz`` refuse objects. No archive is
unpacked: the arrays of an ``.npz`` go from the file into memory. What a file says of its size is
checked against its length before memory is taken for it.
"""

from __future__ import annotations

import math
import operator
import os
import warnings
import zipfile
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gtc_pyg.datasets.sparse_pickle import load_sparse

_INTER_COLUMNS = ("userID", "itemID", "x_label")
_ANEW = "copy or download it anew"
_MOST_SQUEEZED = 100  # a similarity graph's arrays take a third of their size, or more
_MOST_ROWS = 2**31  # so that user * items + item fits 64 bits


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
    r"""Refuses files that are missing or must not be read.

    Raises:
        FileNotFoundError: Names file and folder.
        PermissionError: Names the file.
    """
    for path in paths:
        if not os.path.isfile(path):
            folder, name = os.path.split(os.path.abspath(path))
            above = os.path.dirname(folder)
            more = f"; it lies in {above}" if os.path.isfile(os.path.join(above, name)) else ""
            raise FileNotFoundError(f"missing file {name!r}: expected in the folder {folder}{more}")
        if not os.access(path, os.R_OK):
            raise PermissionError(f"cannot read {path}: permission denied; allow reading it")


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
    form: dict[str, Any] = {"sep": "\t", "dtype": str, "keep_default_na": False, "quoting": 3}
    try:
        with warnings.catch_warnings():
            # Without index_col a field too many in the first line would shift all columns.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            frame = pd.read_csv(path, skip_blank_lines=False, index_col=False, **form).fillna("")
    except (ValueError, pd.errors.ParserWarning) as error:  # pandas' errors are the former, too
        reason = str(error).strip()
        raise ValueError(
            f"{path}: expected a tab-separated table with the header {', '.join(_INTER_COLUMNS)} "
            f"({reason})"
        ) from error
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
            start = file.read(12)
        if start[6:7] > b"\1" and int.from_bytes(start[8:], "little") > os.path.getsize(path):
            raise ValueError("the header is longer than the file")
        array = np.lib.format.open_memmap(path, mode="r")  # takes no memory for what is not there
    except Exception as error:  # a hostile header can raise anything
        raise ValueError(f"{path}: not a whole numeric .npy file ({error}); {_ANEW}") from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path}: holds {array.dtype}, expected real numbers")
    with np.errstate(over="ignore"):  # what overflows becomes inf, which validation refuses
        return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))


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
        part = _members(path)
    except Exception as error:  # a hostile archive can raise anything
        raise ValueError(f"{path}: not an .npz file of plain arrays ({error}); {_ANEW}") from error
    missing = {"format", "shape", "indptr", "indices", "data"} - part.keys()
    if missing:
        raise ValueError(
            f"{path}: missing {', '.join(sorted(missing))}, expected a matrix as "
            "scipy.sparse.save_npz writes it"
        )
    kind = part["format"].tolist()
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
    row = _rows_of(path, indptr, indices.size, num_rows)
    outside = (indices < 0) | (indices >= num_rows)
    if outside.any():
        raise ValueError(
            f"{path}: 'indices' holds {indices[outside.argmax()]}, expected 0 to {num_rows - 1}"
        )
    if weight.shape != indices.shape or weight.dtype.kind not in "fiub":
        raise ValueError(
            f"{path}: 'data' is {weight.dtype} {list(weight.shape)}, expected one real number for "
            f"each of {indices.size} entries"
        )
    with np.errstate(over="ignore"):  # what overflows is not finite either
        single = weight.astype(np.float32)
    if not np.isfinite(single).all():
        raise ValueError(f"{path}: 'data' holds {weight[~np.isfinite(single)][0]}, expected finite")
    edge_index = torch.from_numpy(np.stack([indices.astype(np.int64), row]))
    return edge_index, torch.from_numpy(single), num_rows


def _members(path: str) -> dict[str, np.ndarray]:
    r"""The arrays of an ``.npz`` by name, once they are known to be as large as they say."""
    part = {}
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
        if size > _MOST_SQUEEZED * os.path.getsize(path):
            raise ValueError(f"{size} bytes unpacked, over {_MOST_SQUEEZED} times the file's size")
        for member in archive.infolist():
            with archive.open(member) as file:
                header = np.lib.format.read_magic(file)
                read = getattr(np.lib.format, f"read_array_header_{header[0]}_0")
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename!r} is shorter than its header says")
            with archive.open(member) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            part[member.filename.removesuffix(".npy")] = array
    return part


def _rows_of(path: str, indptr: np.ndarray, size: int, num_rows: int) -> np.ndarray:
    r"""The row of each of ``size`` entries of a CSR matrix ``[size]``, int64."""
    count: Any = np.diff(indptr.astype(np.int64))
    wrong = num_rows < 0 or indptr.size != num_rows + 1 or indptr[0] != 0 or indptr[-1] != size
    if wrong or (count < 0).any():
        raise ValueError(
            f"{path}: 'indptr' does not describe {num_rows} rows of {size} entries, expected a "
            "matrix as SciPy writes it"
        )
    return np.repeat(np.arange(num_rows, dtype=np.int64), count)


def read_sparse_pickle(path: str) -> tuple[Tensor, tuple[int, int]]:
    r"""Reads a pickled SciPy matrix; entries of value zero are dropped.

    COO, CSR or CSC, by a protocol from 2 to 5.

    Returns:
        tuple: ``edge_index`` ``[2, num_entries]``, int64 (rows and columns), and the shape.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If the pickle names anything but array types (the message names what), is
            truncated, or holds indices outside its shape; see
            :func:`~gtc_pyg.datasets.sparse_pickle.load_sparse`.
    """
    require_files(path)
    with open(path, "rb") as file:
        content = file.read()
    try:
        matrix = load_sparse(content)
    except ValueError as error:
        raise ValueError(
            f"{path}: {error}; {_ANEW}, or write it by pickle.dump(matrix, file, protocol=4)"
        ) from error
    state = matrix.state
    try:
        num_rows, num_cols = (operator.index(size) for size in state["_shape"])
        if not (0 <= num_rows < _MOST_ROWS and 0 <= num_cols < _MOST_ROWS):
            raise ValueError(f"rows and columns must be fewer than {_MOST_ROWS}")
        if matrix.layout == "coo":
            row, col = state["coords"] or (state["row"], state["col"])
        else:
            by_row = matrix.layout == "csr"
            other = state["indices"]
            own = _rows_of(path, state["indptr"], other.size, num_rows if by_row else num_cols)
            row, col = (own, other) if by_row else (other, own)
        keep = np.asarray(state["data"] != 0)
        index = np.stack([row, col])
        if index.dtype.kind not in "iu" or index.ndim != 2 or keep.shape != index.shape[1:]:
            raise ValueError("rows, columns and values do not match")
        index = index[:, keep].astype(np.int64)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not a sparse matrix of two dimensions ({type(error).__name__}: {error})"
        ) from error
    for axis, (name, size) in enumerate((("row", num_rows), ("column", num_cols))):
        outside = (index[axis] < 0) | (index[axis] >= size)
        if outside.any():
            raise ValueError(
                f"{path}: {name} {index[axis][outside.argmax()]} is outside the matrix, "
                f"expected 0 to {size - 1}"
            )
    return torch.from_numpy(index), (num_rows, num_cols)
