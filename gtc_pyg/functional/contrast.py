r"""Contrasts and total correlation, without state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gtc_pyg.functional.checks import check_least
from gtc_pyg.functional.rows import upcast


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
    check_least(1, chunk_size=chunk_size)
    inputs = [upcast(x) for x in (anchor, candidates, positive, scale)]
    with torch.autocast(anchor.device.type, enabled=False):
        total = _Contrast.apply(*inputs, exclude, chunk_size)
    return total / max(anchor.size(0), 1)


def total_correlation(
    tensors: Sequence[Tensor],
    scale: Tensor | float,
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
        scale: :math:`s`, a number or a scalar tensor, which may be learned.
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
    scale = scale if isinstance(scale, Tensor) else tensors[0].new_tensor(scale)
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
