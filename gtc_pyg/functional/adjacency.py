r"""What of a graph is refused before an operator that checks nothing reads it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary
from torch_geometric import EdgeIndex
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor

from gtc_pyg.functional.checks import check_ids

_checked = WeakIdKeyDictionary()  # CSR matrices whose indices have been read


def free_to_read(x: Tensor) -> bool:
    r"""Whether values can be read without waiting: on the CPU, outside of :func:`torch.compile`.

    Args:
        x: Any tensor.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def check_edges(
    edge_index: Tensor,
    num_src: int,
    num_dst: int | None,
    name: str = "edge_index",
    kinds: tuple[str, str] = ("user", "item"),
    wait: bool = True,
) -> Tensor:
    r"""Refuses what is no ``edge_index`` of a graph of that size.

    Args:
        edge_index: ``[2, E]`` or :class:`~torch_geometric.EdgeIndex`, of any integer type.
        num_src: Number of nodes in row 0.
        num_dst: Number of nodes in row 1; any where ``None``.
        name: The argument, for the message.
        kinds: What the rows hold, for the message.
        wait: Whether to wait for another device, and leave :func:`torch.compile`, to read the ids.

    Returns:
        The same as a plain ``int64`` tensor, so that products of ids do not overflow; not a copy
        where it is one.

    Raises:
        ValueError: For another type or shape, or an id out of range.
    """
    if isinstance(edge_index, EdgeIndex):
        edge_index = edge_index.as_tensor()
    if not isinstance(edge_index, Tensor) or edge_index.layout != torch.strided:
        got = edge_index.layout if isinstance(edge_index, Tensor) else type(edge_index).__name__
        raise ValueError(f"'{name}' must be a tensor [2, E] of whole numbers (got {got})")
    if edge_index.dim() != 2 or edge_index.size(0) != 2 or not _is_whole(edge_index):
        rows = " and ".join(kinds)
        raise ValueError(
            f"'{name}' must be [2, E] of whole numbers, {rows} (got {edge_index.dtype} "
            f"{list(edge_index.shape)})"
        )
    if wait or free_to_read(edge_index):
        for ids, num, kind in zip(edge_index, (num_src, num_dst), kinds, strict=True):
            check_ids(ids, num, f"'{name}' holds {kind}")
    return edge_index.long()


def check_adjacency(
    adj: Adj,
    num_src: int,
    num_dst: int,
    name: str = "adj",
    kinds: tuple[str, str] = ("source", "destination"),
    wait: bool = True,
) -> Adj:
    r"""Refuses what is no adjacency, in any of PyG's forms, of a graph of that size.

    Args:
        adj: As in :func:`check_edges`, or transposed, ``[num_dst, num_src]``: a ``torch.sparse``
            tensor (CSR, CSC or COO) or ``torch_sparse.SparseTensor``.
        num_src: Number of source nodes.
        num_dst: Number of destination nodes.
        name: As in :func:`check_edges`.
        kinds: As in :func:`check_edges`.
        wait: As in :func:`check_edges`.

    Returns:
        An ``edge_index`` as :func:`check_edges` gives it; a matrix as it is.

    Raises:
        ValueError: For another type, shape or size, an id out of range, or a matrix whose indices
            do not belong together.
    """
    sparse = isinstance(adj, SparseTensor) or is_torch_sparse_tensor(adj)
    if not sparse:
        return check_edges(adj, num_src, num_dst, name, kinds, wait)
    shape = list(adj.sizes() if isinstance(adj, SparseTensor) else adj.shape)
    if shape != [num_dst, num_src]:
        raise ValueError(
            f"'{name}' must be transposed, [num_dst, num_src] = [{num_dst}, {num_src}] (got "
            f"{shape})"
        )
    if not wait and (adj.is_cuda() if isinstance(adj, SparseTensor) else adj.is_cuda):
        return adj
    values = adj.storage.value() if isinstance(adj, SparseTensor) else _values(adj)
    if values is not None and (values.dim() != 1 or values.is_complex()):
        raise ValueError(
            f"'{name}' must have one real value for each edge (got {values.dtype} "
            f"{list(values.shape)})"
        )
    if values is not None and not bool(values.isfinite().all()):
        raise ValueError(f"'{name}' must have finite values (some are not)")
    if isinstance(adj, SparseTensor):
        _check_storage(adj.storage, num_src, num_dst, name, kinds)
    elif adj.layout == torch.sparse_csr:
        check_csr(adj, name, kinds)
    elif adj.layout == torch.sparse_csc:
        indices = adj.ccol_indices(), adj.row_indices()
        _check_compressed(*indices, num_src, num_dst, name, kinds[::-1])
    else:
        check_edges(adj._indices().flip(0), num_src, num_dst, name, kinds)
    return adj


def check_csr(adj: Tensor, name: str = "adj", kinds: tuple[str, str] = ("column", "row")) -> None:
    r"""Refuses a CSR matrix whose indices lead outside of it. Each is read once, however often it
    is multiplied by; none is under :func:`torch.compile`.

    Args:
        adj: The matrix.
        name: As in :func:`check_edges`.
        kinds: As in :func:`check_edges`.

    Raises:
        ValueError: For another layout, pointers that do not rise from 0 to the number of entries,
            or a column out of range.
    """
    if torch.compiler.is_compiling() or (isinstance(adj, Tensor) and adj in _checked):
        return
    if not isinstance(adj, Tensor) or adj.layout != torch.sparse_csr or adj.dim() != 2:
        got = adj.layout if isinstance(adj, Tensor) else type(adj).__name__
        raise ValueError(f"'{name}' must be a CSR matrix (got {got})")
    if adj.values().shape != adj.col_indices().shape:
        raise ValueError(
            f"'{name}' must have one value for each edge (got {list(adj.values().shape)} for "
            f"{list(adj.col_indices().shape)})"
        )
    indices = adj.crow_indices(), adj.col_indices()
    _check_compressed(*indices, adj.size(0), adj.size(1), name, kinds)
    trusted(adj)


def trusted(adj: Tensor) -> Tensor:
    r"""A CSR matrix that was made of checked ones: :func:`check_csr` does not read it again.

    Args:
        adj: The matrix.
    """
    if not torch.compiler.is_compiling():
        _checked[adj] = True
    return adj


def _is_whole(x: Tensor) -> bool:
    return not (x.is_floating_point() or x.is_complex() or x.dtype == torch.bool)


def _values(adj: Tensor) -> Tensor:
    return adj._values() if adj.layout == torch.sparse_coo else adj.values()


def _check_compressed(
    pointer: Tensor, index: Tensor, num_rows: int, num_cols: int, name: str, kinds: tuple[str, str]
) -> None:
    whole = pointer.shape == (num_rows + 1,) and index.dim() == 1
    steps = pointer.diff()
    if not whole or bool((pointer[0] != 0) | (pointer[-1] != index.numel()) | (steps < 0).any()):
        raise ValueError(
            f"'{name}' must have {num_rows + 1} pointers that rise from 0 to its {index.numel()} "
            f"entries (it was made by hand, without check_invariants=True)"
        )
    check_ids(index, num_cols, f"'{name}' holds {kinds[0]}")


def _check_storage(
    storage: Any, num_src: int, num_dst: int, name: str, kinds: tuple[str, str]
) -> None:
    """Of a ``SparseTensor``, which has rows, pointers or both."""
    col = storage.col()
    check_ids(col, num_src, f"'{name}' holds {kinds[0]}")
    if storage.has_row():
        row = storage.row()
        check_ids(row, num_dst, f"'{name}' holds {kinds[1]}")
        if row.shape != col.shape or bool((row[1:] < row[:-1]).any()):
            raise ValueError(
                f"'{name}' must be sorted by {kinds[1]} (it was made by hand, with is_sorted=True)"
            )
    if storage.has_rowptr():
        _check_compressed(storage.rowptr(), col, num_dst, num_src, name, kinds)
