r"""Products with a constant sparse matrix, and how one is made."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_torch_csr_tensor

from gtc_pyg.functional.adjacency import (
    check_adjacency,
    check_csr,
    check_edges,
    free_to_read,
    trusted,
)
from gtc_pyg.functional.checks import check_ids, check_least

# PyTorch says once per process that CSR is in beta, and that its checks are off (their default).
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def to_csr(adj: Adj, num_dst: int, num_src: int, edge_weight: Tensor | None = None) -> Tensor:
    r"""Any of PyG's adjacency forms as a transposed ``torch.sparse`` CSR tensor.

    Args:
        adj: ``edge_index`` ``[2, E]`` or :class:`~torch_geometric.EdgeIndex` (source, destination),
            or a transposed CSR tensor or ``torch_sparse.SparseTensor`` ``[num_dst, num_src]``.
        num_dst: Number of destination nodes.
        num_src: Number of source nodes.
        edge_weight: ``[E]``, for ``edge_index`` only; ones where absent. An edge that stands twice
            counts twice, as in message passing.

    Returns:
        CSR tensor ``[num_dst, num_src]`` with ``int64`` indices and floating values; those given
        keep their type, but for half precision, in which degrees could not be counted.

    Raises:
        ValueError: For what is no adjacency, an id out of range, a matrix or weights of another
            size, or weights that are not finite.
    """
    adj = check_adjacency(adj, num_src, num_dst)
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float)
    if isinstance(adj, SparseTensor):
        csr = adj.to_torch_sparse_csr_tensor(dtype=dtype)
    elif is_torch_sparse_tensor(adj):
        csr = adj if adj.layout == torch.sparse_csr else adj.to_sparse_csr()
    else:
        if edge_weight is None:
            edge_weight = torch.ones(adj.size(1), dtype=dtype, device=adj.device)
        check_weights(edge_weight, adj.size(1))
        size = (num_dst, num_src)
        csr = to_torch_csr_tensor(adj.flip(0), edge_weight.view(-1), size=size)
    values, index = csr.values(), csr.col_indices()
    wanted = torch.promote_types(values.dtype, torch.float) if csr.is_floating_point() else dtype
    if values.dtype != wanted or index.dtype != torch.long:
        crow, size = csr.crow_indices().long(), csr.shape
        csr = torch.sparse_csr_tensor(crow, index.long(), values.to(wanted), size=size)
    return trusted(csr)


def check_weights(edge_weight: Tensor, num_edges: int, wait: bool = True) -> None:
    r"""Refuses what is not one real, finite number for each edge.

    Args:
        edge_weight: ``[E]`` or ``[E, 1]``.
        num_edges: :math:`E`.
        wait: As in :func:`check_edges`.

    Raises:
        ValueError: With what was given.
    """
    if not isinstance(edge_weight, Tensor) or edge_weight.is_complex():
        got = edge_weight.dtype if isinstance(edge_weight, Tensor) else type(edge_weight).__name__
        raise ValueError(f"'edge_weight' must be a tensor of real numbers (got {got})")
    if edge_weight.numel() != num_edges:
        raise ValueError(
            f"'edge_weight' must hold {num_edges}, one for each edge (got {edge_weight.numel()})"
        )
    if (wait or free_to_read(edge_weight)) and not bool(edge_weight.isfinite().all()):
        raise ValueError("'edge_weight' must be finite (some are not)")


def stack_interactions(to_item: Tensor, to_user: Tensor) -> Tensor:
    r"""The user-item graph as one symmetric square matrix, normalised for ``LGConv``.

    .. math:: \hat A = D^{-1/2} \begin{pmatrix} 0 & R \\ R^\top & 0 \end{pmatrix} D^{-1/2}

    Args:
        to_item: CSR ``[num_items, num_users]``, :math:`R^\top`.
        to_user: CSR ``[num_users, num_items]``, :math:`R`.

    Returns:
        CSR ``[num_users + num_items] * 2``; users come first. Isolated nodes keep empty rows.

    Raises:
        ValueError: For matrices whose shapes do not fit, or whose indices lead outside of them.
    """
    num_users = to_user.size(0)
    check_csr(to_item, "to_item")
    check_csr(to_user, "to_user")
    if to_item.shape != (to_user.size(1), num_users):
        raise ValueError(
            f"'to_item' must be [num_items, num_users] = [{to_user.size(1)}, {num_users}], the "
            f"shape of 'to_user' turned round (got {list(to_item.shape)})"
        )
    rowptr_user, rowptr_item = to_user.crow_indices(), to_item.crow_indices()
    rowptr = torch.cat([rowptr_user, rowptr_item[1:] + rowptr_user[-1]])
    col = torch.cat([to_user.col_indices() + num_users, to_item.col_indices()])
    value = torch.cat([to_user.values(), to_item.values()])
    degree = torch.segment_reduce(value, "sum", offsets=rowptr, initial=0)
    scale = degree.pow(-0.5).masked_fill(degree == 0, 0)
    value = value * scale.repeat_interleave(rowptr.diff()) * scale[col]
    num_nodes = rowptr.numel() - 1
    return torch.sparse_csr_tensor(rowptr, col, value, size=(num_nodes, num_nodes))


class _SpMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx, adj, adj_transposed, x):  # type: ignore[no-untyped-def]
        ctx.adj, ctx.adj_transposed = adj, adj_transposed
        return _product(adj, x).to(x.dtype)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        return None, None, _SpMM.apply(ctx.adj_transposed, ctx.adj, grad_output)


class _LayerMean(torch.autograd.Function):
    """Horner's rule: a product and a sum for each layer, and no layer is kept."""

    @staticmethod
    def forward(ctx, adj, adj_transposed, x, num_layers):  # type: ignore[no-untyped-def]
        ctx.adj, ctx.adj_transposed, ctx.num_layers = adj, adj_transposed, num_layers
        first = x.to(torch.promote_types(x.dtype, torch.float))
        out = first
        for layer in range(num_layers):
            share = 1 / (num_layers + 1) if layer == num_layers - 1 else 1.0
            out = _add_product(first.clone(), adj, out, share, share)
        return out.to(x.dtype)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        grad = _LayerMean.apply(ctx.adj_transposed, ctx.adj, grad_output, ctx.num_layers)
        return None, None, grad, None


def _product(adj: Tensor, x: Tensor) -> Tensor:
    """``adj @ x``, never in half precision."""
    out = x.new_empty(adj.size(0), x.size(1), dtype=torch.promote_types(x.dtype, torch.float))
    return _add_product(out, adj, x, beta=0.0)  # what 'out' holds is not looked at


def _add_product(
    out: Tensor, adj: Tensor, x: Tensor, beta: float = 1.0, alpha: float = 1.0
) -> Tensor:
    """``beta * out + alpha * adj @ x``, in place, never in half precision."""
    # torch.sparse.mm fills two new results: on 16,018 nodes, 64 columns, where memory is fresh,
    # 5.6 ms against 0.7 ms (benchmarks/notes.md).
    return out.addmm_(adj.to(out.dtype), x.to(out.dtype), beta=beta, alpha=alpha)


def spmm(adj: Tensor, adj_transposed: Tensor, x: Tensor) -> Tensor:
    r"""Product of a constant CSR matrix with a dense one, where its transpose is at hand.

    Autograd would transpose the matrix at every step.

    Args:
        adj: CSR ``[N, K]``.
        adj_transposed: The same transposed, CSR ``[K, N]`` (``adj`` itself where symmetric).
        x: ``[K, D]``, floating; the matrix is cast to its type, and half precision is summed in
            floats.

    Returns:
        ``[N, D]``, in the type of ``x``.

    Raises:
        ValueError: For matrices whose shapes do not fit, or whose indices lead outside of them.
    """
    _check_product(adj, x)
    _check_both(adj, adj_transposed)
    return _SpMM.apply(adj, adj_transposed, x)


def layer_mean(adj: Tensor, adj_transposed: Tensor, x: Tensor, num_layers: int) -> Tensor:
    r"""Mean over the layers of LightGCN, :math:`\frac{1}{L + 1} \sum_{l=0}^L \hat A^l x`.

    What :class:`~torch_geometric.nn.conv.LGConv` and a mean compute.

    Args:
        adj: :math:`\hat A`, CSR ``[N, N]`` (:func:`stack_interactions`).
        adj_transposed: The same transposed (``adj`` itself where symmetric).
        x: ``[N, D]``, floating, as in :func:`spmm`.
        num_layers: :math:`L`.

    Returns:
        ``[N, D]``, in the type of ``x``.
    """
    check_least(0, num_layers=num_layers)
    _check_product(adj, x)
    _check_both(adj, adj_transposed)
    if adj.size(0) != adj.size(1):
        raise ValueError(f"'adj' must be square (got {list(adj.shape)})")
    return x if num_layers == 0 else _LayerMean.apply(adj, adj_transposed, x, num_layers)


def _check_both(adj: Tensor, adj_transposed: Tensor) -> None:
    check_csr(adj)
    check_csr(adj_transposed, "adj_transposed")
    if adj_transposed.shape != adj.shape[::-1]:
        raise ValueError(
            f"'adj_transposed' must be {list(adj.shape[::-1])}, 'adj' turned round (got "
            f"{list(adj_transposed.shape)})"
        )


def _check_product(adj: Tensor, x: Tensor) -> None:
    check_csr(adj)
    if x.dim() != 2 or x.size(0) != adj.size(1) or not x.is_floating_point():
        raise ValueError(
            f"'x' must be floating point [{adj.size(1)}, D], a row for each column of 'adj' (got "
            f"{x.dtype} {list(x.shape)})"
        )


def spmm_learning(adj: Tensor, x: Tensor, rows: Tensor, picked: Tensor) -> Tensor:
    r"""Product of a constant CSR matrix with a dense one of which some rows alone learn.

    Can be differentiated once.

    Args:
        adj: CSR ``[N, K]``.
        x: ``[K, D]``; gets no gradient.
        rows: Some rows of ``x``, ``[R, D]``; they get the gradient that they would get there.
        picked: The rows of the transposed matrix that belong to them, CSR ``[R, N]``
            (:func:`select_rows`).

    Returns:
        ``[N, D]``, as :func:`spmm` gives it.

    Raises:
        ValueError: For matrices whose shapes do not fit, or whose indices lead outside of them.
    """
    _check_product(adj, x)
    check_csr(picked, "picked")
    if picked.shape != (rows.size(0), adj.size(0)) or rows.shape[1:] != x.shape[1:]:
        raise ValueError(
            f"'rows' must be [R, {x.size(1)}] and 'picked' [R, {adj.size(0)}] (got "
            f"{list(rows.shape)} and {list(picked.shape)})"
        )
    return _SpMMLearning.apply(adj, x, rows, picked)


class _SpMMLearning(torch.autograd.Function):
    @staticmethod
    def forward(ctx, adj, x, rows, picked):  # type: ignore[no-untyped-def]
        ctx.picked = picked
        return _product(adj, x).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        return None, None, _product(ctx.picked, grad_output).to(grad_output.dtype), None


def select_rows(adj: Tensor, rows: Tensor) -> Tensor:
    r"""Some rows of a CSR matrix.

    Args:
        adj: CSR ``[N, K]``.
        rows: ``[R]``.

    Returns:
        CSR ``[R, K]``.

    Raises:
        ValueError: For a matrix whose indices lead outside of it, or a row that it has not.
    """
    check_csr(adj)
    if free_to_read(rows):
        rows = check_ids(rows, adj.size(0), "'rows' holds")
    start, count = adj.crow_indices()[rows], adj.crow_indices().diff()[rows]
    rowptr = F.pad(count.cumsum(0), (1, 0))
    entry = (start - rowptr[:-1]).repeat_interleave(count)
    entry = entry + torch.arange(entry.numel(), device=rows.device)
    size = (rows.numel(), adj.size(1))
    col, value = adj.col_indices()[entry], adj.values()[entry]
    return trusted(torch.sparse_csr_tensor(rowptr, col, value, size=size))


def select_columns(adj: Tensor, columns: Tensor) -> Tensor:
    r"""Some columns of a CSR matrix.

    Args:
        adj: CSR ``[N, K]``.
        columns: Ascending, none twice ``[C]``.

    Returns:
        CSR ``[N, C]``.

    Raises:
        ValueError: For a matrix whose indices lead outside of it, or a column that it has not.
    """
    check_csr(adj)
    if free_to_read(columns):
        columns = check_ids(columns, adj.size(1), "'columns' holds")
    new_id = torch.full((adj.size(1),), -1, device=columns.device)
    new_id[columns] = torch.arange(columns.numel(), device=columns.device)
    col = new_id[adj.col_indices()]
    kept = col >= 0
    rowptr = F.pad(kept.cumsum(0), (1, 0))[adj.crow_indices()]
    size = (adj.size(0), columns.numel())
    return trusted(torch.sparse_csr_tensor(rowptr, col[kept], adj.values()[kept], size=size))


def degree_sensitive_sample(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    num_samples: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""Keeps edges with probability in proportion to :math:`1 / \sqrt{d_u d_i}`, none twice.

    The pruning of `FREEDOM <https://arxiv.org/abs/2211.06924>`_: edges between popular nodes go
    first. Drawn by an exponential race, which has no limit on the number of edges.

    Args:
        edge_index: ``[2, E]``, users and items.
        num_users: Number of users.
        num_items: Number of items.
        num_samples: Edges to keep, at most ``E``.
        generator: Draws the race.

    Returns:
        Positions of the kept edges ``[num_samples]``, ascending.

    Raises:
        ValueError: For an id out of range, or more edges to keep than there are.
    """
    user, item = check_edges(edge_index, num_users, num_items)
    if not 0 <= num_samples <= user.numel():
        raise ValueError(f"'num_samples' must be from 0 to {user.numel()} (got {num_samples})")
    degree_user = torch.bincount(user, minlength=num_users).to(torch.float)
    degree_item = torch.bincount(item, minlength=num_items).to(torch.float)
    weight = (degree_user[user] * degree_item[item]).rsqrt()
    race = torch.empty_like(weight).exponential_(generator=generator) / weight
    return race.topk(num_samples, largest=False, sorted=False).indices.sort().values
