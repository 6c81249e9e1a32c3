r"""Pure mathematics: contrasts, total correlation, sparse products. No state, no modules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch_geometric import EdgeIndex
from torch_geometric.typing import Adj, SparseTensor
from torch_geometric.utils import is_torch_sparse_tensor, to_torch_csr_tensor

__all__ = [
    "multilinear_inner_product",
    "contrast",
    "total_correlation",
    "draw_permutations",
    "upcast",
    "to_csr",
    "check_ids",
    "stack_interactions",
    "spmm",
    "degree_sensitive_sample",
]


# PyTorch says once per process that CSR is in beta, and that its checks are off (their default).
warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


def multilinear_inner_product(tensors: Sequence[Tensor]) -> Tensor:
    r"""Sum over the last dimension of the elementwise product, :math:`\sum_d \prod_b r^b_{id}`.

    With two tensors this is the inner product of matching rows.

    Args:
        tensors: One or more tensors :math:`[N, D]`.

    Returns:
        Tensor :math:`[N]`.

    Example:
        >>> import torch
        >>> a = torch.tensor([[1.0, 2.0]])
        >>> multilinear_inner_product([a, a, a])
        tensor([9.])
    """
    return _product(tensors).sum(dim=-1)


def _product(tensors: Sequence[Tensor]) -> Tensor:
    out = tensors[0]
    for tensor in tensors[1:]:
        out = out * tensor
    return out


class _Contrast(torch.autograd.Function):
    """Sum of cross-entropies of a positive among candidates, chunked over rows.

    The loss is a scalar, so its gradient is known up to one factor while a chunk of logits is at
    hand: it is accumulated in the forward pass and no ``[N, K]`` matrix outlives its chunk.
    """

    @staticmethod
    def forward(ctx, anchor, candidates, positive, scale, exclude, chunk_size):  # type: ignore[no-untyped-def]
        need_grad = any(ctx.needs_input_grad[:4])
        total = anchor.new_zeros(())
        grads = tuple(torch.zeros_like(x) for x in (anchor, candidates, positive, scale))
        grad_anchor, grad_candidates, grad_positive, grad_scale = grads
        for start in range(0, anchor.size(0), chunk_size):
            rows = slice(start, start + chunk_size)
            a, p = anchor[rows], positive[rows]
            scaled = scale * a
            pos = (scaled * p).sum(-1)
            logits = scaled @ candidates.t()
            logits.scatter_(1, exclude[rows], float("-inf"))
            top = torch.maximum(logits.amax(dim=1), pos)
            weight = logits.sub_(top.view(-1, 1)).exp_()
            own = (pos - top).exp()
            norm = weight.sum(dim=1) + own
            total += (norm.log() + top - pos).sum()
            if need_grad:
                norm, excess = norm.view(-1, 1), (own / norm - 1.0).view(-1, 1)
                pull = weight @ candidates / norm + excess * p
                grad_anchor[rows] = scale * pull
                grad_candidates.addmm_(weight.t(), scaled / norm)
                grad_positive[rows] = excess * scaled
                grad_scale += (pull * a).sum()
        if need_grad:
            ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        grads = (grad_output * grad for grad in ctx.saved_tensors)
        return (*grads, None, None)


def contrast(
    anchor: Tensor,
    candidates: Tensor,
    positive: Tensor,
    scale: Tensor,
    exclude: Tensor,
    chunk_size: int = 512,
) -> Tensor:
    r"""Mean cross-entropy of each row's positive among the shared candidates.

    .. math::
        L = \frac{1}{N} \sum_i -\log \frac{e^{s \langle a_i, p_i \rangle}}
        {e^{s \langle a_i, p_i \rangle} + \sum_{k \notin E_i} e^{s \langle a_i, c_k \rangle}}

    Memory is :math:`O(K \cdot \mathrm{chunk})` beside the inputs and their gradients. Half
    precision is cast up and autocast is off inside, so the sums are never half precision.

    Args:
        anchor: :math:`a`, ``[N, D]``.
        candidates: :math:`c`, ``[K, D]``.
        positive: :math:`p`, ``[N, D]``.
        scale: :math:`s`, a scalar tensor.
        exclude: :math:`E`, ``[N, X]`` indices into the candidates that are no negatives of a row;
            repeat an index where a row has fewer than :math:`X`.
        chunk_size: Rows whose logits exist at the same time.

    Returns:
        A scalar, in nats.
    """
    if chunk_size < 1:
        raise ValueError(f"'chunk_size' must be at least 1 (got {chunk_size})")
    inputs = [upcast(x) for x in (anchor, candidates, positive, scale)]
    with torch.autocast(anchor.device.type, enabled=False):
        total = _Contrast.apply(*inputs, exclude, chunk_size)
    return total / max(anchor.size(0), 1)


def total_correlation(
    tensors: Sequence[Tensor],
    scale: Tensor,
    negatives: str = "n",
    chunk_size: int = 512,
    generator: torch.Generator | None = None,
    permutations: Tensor | None = None,
    anchors: slice = slice(None),
) -> Tensor:
    r"""Contrast whose optimum bounds the total correlation of :math:`T` tensors.

    For anchor :math:`a` and row :math:`i` the positive logit is
    :math:`s \langle r^a_i, \prod_{b \neq a} r^b_i \rangle`. Four rows, three tensors, anchor 1,
    row 2, ``negatives='n'``, permutations :math:`\pi, \rho` of the other two: the logits are

    .. code-block:: text

        column 0  <r1_2, r2_π(0) * r3_ρ(0)>
        column 1  <r1_2, r2_π(1) * r3_ρ(1)>
        column 2  <r1_2, r2_2 * r3_2>          the positive, in place of its own column
        column 3  <r1_2, r2_π(3) * r3_ρ(3)>

    A candidate that the permutations bring back to row 2 itself is left out of its negatives, so a
    row has :math:`K = N` candidates, or :math:`N - 1` where that happens (with two tensors: always,
    but where a row stays in place).

    Args:
        tensors: :math:`T \geq 2` tensors ``[N, D]``, normalised by the caller.
        scale: :math:`s`, a scalar tensor.
        negatives: ``'n'``: one candidate a row, every other tensor permuted on its own;
            ``'n_squared'``: all :math:`N^{T-1}` combinations, for small :math:`N`; ``'disjoint'``
            (ours): :math:`K = \lfloor N / (T - 1) \rfloor` candidates of :math:`T - 1` rows each,
            no row in two of them; a row's own gives way to the positive. Only these are drawn
            independently from :math:`\prod_b p(r^b)`, so only with them is :math:`\log K - L`
            proven to bound the total correlation from below.
        chunk_size: Rows whose logits exist at the same time.
        generator: Draws the permutations.
        permutations: ``[T, T - 1, N]``, as :func:`draw_permutations` gives them; drawn where
            ``None``. The first index is the anchor.
        anchors: Rows whose loss is taken; all where not given. The others are candidates only.

    Returns:
        Mean over these rows and all anchors, a scalar in nats.
    """
    if negatives not in ("n", "n_squared", "disjoint"):
        raise ValueError(f"'negatives' must be 'n', 'n_squared' or 'disjoint' (got {negatives!r})")
    tensors = [upcast(x) for x in tensors]
    if permutations is None and negatives != "n_squared":
        permutations = draw_permutations(len(tensors), tensors[0], generator)
    losses = []
    for index, anchor in enumerate(tensors):
        others = [tensor for i, tensor in enumerate(tensors) if i != index]
        if permutations is None or negatives == "n_squared":
            candidates, exclude = _all_combinations(others)
        elif negatives == "n":
            candidates, exclude = _permuted(others, permutations[index])
        else:
            candidates, exclude = _disjoint(others, permutations[index, 0])
        positive = _product([x[anchors] for x in others])
        losses.append(
            contrast(anchor[anchors], candidates, positive, scale, exclude[anchors], chunk_size)
        )
    return torch.stack(losses).mean()


def draw_permutations(
    num_tensors: int, like: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    r"""A permutation of the rows for each anchor and each of its others.

    Args:
        num_tensors: :math:`T`.
        like: A tensor ``[N, ...]`` on the device of the result.
        generator: Draws them.

    Returns:
        ``[T, T - 1, N]``.
    """
    n, shape = like.size(0), (num_tensors, num_tensors - 1, like.size(0))
    source = like.device if generator is None else generator.device
    draws = [
        torch.randperm(n, generator=generator, device=source) for _ in range(shape[0] * shape[1])
    ]
    return torch.stack(draws).view(shape).to(like.device)


def _permuted(others: Sequence[Tensor], perms: Tensor) -> tuple[Tensor, Tensor]:
    candidates = _product([x.index_select(0, p) for x, p in zip(others, perms, strict=True)])
    rows = torch.arange(perms.size(1), device=perms.device)
    home = perms[0].argsort()
    returned = (perms[:, home] == rows).all(dim=0)
    return candidates, torch.stack([rows, torch.where(returned, home, rows)], dim=1)


def _all_combinations(others: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    rows = torch.arange(others[0].size(0), device=others[0].device)
    candidates, exclude = others[0], rows
    for other in others[1:]:
        candidates = (candidates.unsqueeze(1) * other.unsqueeze(0)).flatten(0, 1)
        exclude = exclude * rows.numel() + rows
    return candidates, exclude.view(-1, 1)


def _disjoint(others: Sequence[Tensor], perm: Tensor) -> tuple[Tensor, Tensor]:
    num = max(perm.numel() // len(others), min(perm.numel(), 1))
    parts = [perm.roll(-j * num)[:num] for j in range(len(others))]
    candidates = _product([x.index_select(0, p) for x, p in zip(others, parts, strict=True)])
    # Rows left over leave one out as well: K is the same for all.
    exclude = perm.argsort() % max(num, 1)
    return candidates, exclude.view(-1, 1)


def upcast(x: Tensor) -> Tensor:
    r"""Half precision as ``float32``; any other tensor as it is.

    Args:
        x: Of any shape.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


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
        CSR tensor ``[num_dst, num_src]``, floating values; those given keep their type.

    Raises:
        ValueError: For an id out of range, or a matrix or weights of another size.
    """
    dtype = torch.get_default_dtype()
    if isinstance(adj, SparseTensor):
        csr = adj.to_torch_sparse_csr_tensor(dtype=dtype)
    elif is_torch_sparse_tensor(adj):
        csr = adj if adj.layout == torch.sparse_csr else adj.to_sparse_csr()
    else:
        edge_index = adj.as_tensor() if isinstance(adj, EdgeIndex) else adj
        check_ids(edge_index[0], num_src, "'adj' holds source")
        check_ids(edge_index[1], num_dst, "'adj' holds destination")
        num_edges = edge_index.size(1)
        if edge_weight is None:
            edge_weight = torch.ones(num_edges, dtype=dtype, device=edge_index.device)
        elif edge_weight.numel() != num_edges:
            raise ValueError(
                f"'edge_weight' must hold {num_edges}, one for each edge (got "
                f"{edge_weight.numel()})"
            )
        size = (num_dst, num_src)
        csr = to_torch_csr_tensor(edge_index.flip(0), edge_weight.view(-1), size=size)
    if tuple(csr.shape) != (num_dst, num_src):
        raise ValueError(
            f"'adj' must be transposed, [num_dst, num_src] = [{num_dst}, {num_src}] "
            f"(got {list(csr.shape)})"
        )
    if is_torch_sparse_tensor(adj):
        check_ids(csr.col_indices(), num_src, "'adj' holds source")
    return csr if csr.is_floating_point() else csr.to(dtype)


def check_ids(ids: Tensor, num: int, what: str) -> None:
    r"""Refuses ids outside ``0`` to ``num - 1``, which sparse products read from foreign memory.

    Waits for the device that holds the ids.

    Args:
        ids: Of whole numbers, any shape.
        num: Number of nodes.
        what: Opening of the message, ``"'adj' holds source"`` say.

    Raises:
        ValueError: With the first of the smallest and the largest id that is out of range.
    """
    if ids.numel() > 0:
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high >= num:
            raise ValueError(f"{what} {low if low < 0 else high}, expected 0 to {num - 1}")


def stack_interactions(to_item: Tensor, to_user: Tensor) -> Tensor:
    r"""The user-item graph as one symmetric square matrix, normalised for ``LGConv``.

    .. math:: \hat A = D^{-1/2} \begin{pmatrix} 0 & R \\ R^\top & 0 \end{pmatrix} D^{-1/2}

    Args:
        to_item: CSR ``[num_items, num_users]``, :math:`R^\top`.
        to_user: CSR ``[num_users, num_items]``, :math:`R`.

    Returns:
        CSR ``[num_users + num_items] * 2``; users come first. Isolated nodes keep empty rows.
    """
    num_users = to_user.size(0)
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
        ctx.adj_transposed = adj_transposed
        return _product_of(adj, x)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        return None, None, _product_of(ctx.adj_transposed, grad_output)


def _product_of(adj: Tensor, x: Tensor) -> Tensor:
    # Half precision is neither summed nor, on the CPU, multiplied in sparse products.
    dtype = torch.promote_types(x.dtype, torch.float)
    with torch.autocast(x.device.type, enabled=False):
        return torch.sparse.mm(adj.to(dtype), x.to(dtype)).to(x.dtype)


def spmm(adj: Tensor, adj_transposed: Tensor, x: Tensor) -> Tensor:
    r"""Product of a constant CSR matrix with a dense one, where its transpose is at hand.

    Autograd would transpose the matrix at every step; on a graph of TikTok's size, 64 columns,
    forward and backward take 5.8 ms this way against 13.2 ms.

    Args:
        adj: CSR ``[N, K]``.
        adj_transposed: The same transposed, CSR ``[K, N]`` (``adj`` itself where symmetric).
        x: ``[K, D]``, floating; the matrix is cast to its type, and half precision is summed in
            floats.

    Returns:
        ``[N, D]``, in the type of ``x``.
    """
    return _SpMM.apply(adj, adj_transposed, x)


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
    """
    user, item = edge_index
    degree_user = torch.bincount(user, minlength=num_users).to(torch.float)
    degree_item = torch.bincount(item, minlength=num_items).to(torch.float)
    weight = (degree_user[user] * degree_item[item]).rsqrt()
    race = torch.empty_like(weight).exponential_(generator=generator) / weight
    return race.topk(num_samples, largest=False, sorted=False).indices.sort().values
