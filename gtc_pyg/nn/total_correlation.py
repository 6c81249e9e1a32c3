from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import Module, Parameter

from gtc_pyg.functional import (
    check_least,
    draw_permutations,
    takes_numbers,
    total_correlation,
    upcast,
)


class TotalCorrelationLoss(Module):
    r"""Aligns two or more views of the same rows at once, through their total correlation.

    The contrast of `"User-Aware Conditional Generative Total Correlation Learning for
    Multi-Modal Recommendation" <https://arxiv.org/abs/2604.03014>`_ (the multilinear critic of
    `Symile <https://arxiv.org/abs/2411.01053>`_). Rows are L2-normalised; for every anchor the true
    row of the others competes with rows in which every other tensor is permuted on its own:

    .. math::
        L = \frac{1}{TN} \sum_{a, i} -\log \frac{e^{\ell^a_{ii}}}{\sum_{k \in C^a_i}
        e^{\ell^a_{ik}}}, \qquad
        \ell^a_{ik} = s \Bigl\langle r^a_i, \prod_{b \neq a} r^b_{\pi_b(k)} \Bigr\rangle

    with :math:`\pi_b(i) = i` in the positive. See :func:`gtc_pyg.functional.total_correlation` for
    one row of logits, and :meth:`lower_bound` for what it says about

    .. math:: TC(r^1, \dots, r^T) = D_{KL}(p(r^1, \dots, r^T) \,\|\, \prod_b p(r^b)).

    Half precision is cast up and autocast is off inside. A row of zeros stays zero and receives no
    gradient. Numbers are the same under ``torch.compile``, which leaves the loss uncompiled.

    Args:
        negatives: ``'n'`` (one candidate a row) or ``'n_squared'`` (all :math:`N^{T-1}` of them).
        chunk_size: Rows whose logits exist at the same time; memory is ``O(N * chunk_size)``, with
            ``'n_squared'`` :math:`O(N^{T-1} \cdot` ``chunk_size``:math:`)`.
        product_scale: The product of :math:`T - 1` unit vectors shrinks like
            :math:`D^{-(T-2)/2}`, so at the published scale the contrast of three or more
            tensors is nearly flat. ``'sqrt_dim'`` (ours) multiplies it by :math:`D^{(T-2)/2}`;
            ``'none'`` is the published form. With two tensors they are the same.
        init_logit_scale: Start of the learned ``logit_scale`` :math:`\log s`; as published.
        max_logit_scale: Upper limit of :math:`\log s`. Beyond it the scale counts as the limit, and
            only a gradient that leads back is passed on (a plain clamp would pass none).
        gather_distributed: Candidates come from the rows of all processes of the default group
            (ours). Every process is an anchor for its own rows and returns the loss of the joined
            batch; gradients are those of the joined batch once they are averaged over processes, as
            ``DistributedDataParallel`` does, ``logit_scale`` included. Numbers of rows may differ.
            Permutations are those of the first process. No effect outside ``torch.distributed``.

    Shapes:
        - **input:** a sequence of :math:`T \geq 2` tensors :math:`(N, D)`; optional masks, one
          :math:`(N)` (bool) or ``None`` for each
        - **output:** a scalar in nats; 0 where no row has all tensors

    Example:
        >>> import torch
        >>> views = [torch.randn(8, 4) for _ in range(3)]
        >>> TotalCorrelationLoss()(views).shape
        torch.Size([])
    """

    @takes_numbers
    def __init__(
        self,
        negatives: str = "n",
        chunk_size: int = 512,
        product_scale: str = "sqrt_dim",
        init_logit_scale: float = math.log(1 / 0.07),
        max_logit_scale: float = math.log(100.0),
        gather_distributed: bool = False,
    ) -> None:
        super().__init__()
        if negatives not in ("n", "n_squared"):
            raise ValueError(f"'negatives' must be 'n' or 'n_squared' (got {negatives!r})")
        check_least(1, chunk_size=chunk_size)
        if product_scale not in ("none", "sqrt_dim"):
            raise ValueError(
                f"'product_scale' must be 'none' or 'sqrt_dim' (got {product_scale!r})"
            )
        if not init_logit_scale <= max_logit_scale:
            raise ValueError(
                f"'init_logit_scale' is the logarithm of the scale and must be at most "
                f"'max_logit_scale' = {max_logit_scale:.3g} (got {init_logit_scale})"
            )
        self.negatives = negatives
        self.chunk_size = chunk_size
        self.product_scale = product_scale
        self.init_logit_scale = init_logit_scale
        self.max_logit_scale = max_logit_scale
        self.gather_distributed = gather_distributed
        self.logit_scale = Parameter(torch.empty(()))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Puts the scale back to its start."""
        torch.nn.init.constant_(self.logit_scale, self.init_logit_scale)

    def forward(
        self,
        tensors: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""The mean cross-entropy over rows and anchors.

        Args:
            tensors: Two or more tensors ``[N, D]``.
            masks: Presence of each tensor's rows. Every logit multiplies all tensors, so a row that
                lacks one is no positive and no candidate: the loss is that of the complete rows.
            generator: Draws the permutations.

        Raises:
            ValueError: For fewer than two tensors, shapes that do not agree, integers, or values
                of complete rows that are not finite.
        """
        return self._contrast(tensors, masks, self.negatives, generator)[0]

    @torch.no_grad()
    def lower_bound(
        self,
        tensors: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""A lower bound of the total correlation, in nats, without gradient.

        .. math:: \log K - L \leq TC, \qquad K = \lfloor N / (T - 1) \rfloor

        holds in expectation over independent rows that the tensors' encoders have not been trained
        on, for every scale and however the encoders were trained, with ``'n_squared'`` too. A
        bound needs candidates that are independent of one another and of the row; the loss's own
        share rows. Here (ours) each candidate is made of :math:`T - 1` rows of its own, and a row
        leaves out the one that it is part of. The bound cannot exceed :math:`\log K`, so give it
        many rows; on few it is loose, and 0 where :math:`K < 2`. It is averaged over rows and
        anchors. A negative one says no more than that the encoders know nothing of these rows.

        Args:
            tensors: Two or more tensors ``[N, D]``.
            masks: Presence of each tensor's rows; the bound is that of the complete rows.
            generator: Draws the candidates.

        Raises:
            ValueError: As :meth:`forward`.
        """
        loss, num_rows = self._contrast(tensors, masks, "disjoint", generator)
        return math.log(max(num_rows // (len(tensors) - 1), 1)) - loss

    @torch.compiler.disable
    def _contrast(
        self,
        tensors: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None,
        negatives: str,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, int]:
        tensors = [_unit_rows(x, i) for i, x in enumerate(_complete_rows(tensors, masks))]
        scale = _Limit.apply(upcast(self.logit_scale), self.max_logit_scale).exp()
        if self.product_scale == "sqrt_dim" and len(tensors) > 2:
            # Each logit multiplies all T tensors: a share each, or many would leave the range.
            factor = tensors[0].size(1) ** (0.5 - 1 / len(tensors))
            tensors = [factor * x for x in tensors]
        settings = (scale, negatives, self.chunk_size, generator)
        if not (self.gather_distributed and dist.is_available() and dist.is_initialized()):
            return total_correlation(tensors, *settings), tensors[0].size(0)
        tensors, own = _gather_rows(tensors)
        num_rows = tensors[0].size(0)
        perms = draw_permutations(len(tensors), tensors[0], generator)
        dist.broadcast(perms, 0)
        loss = total_correlation(tensors, *settings, permutations=perms, anchors=own)
        # DDP's mean over processes makes a sum over their rows of this.
        loss = loss * (dist.get_world_size() * (own.stop - own.start) / max(num_rows, 1))
        joined = loss.detach().clone()
        dist.all_reduce(joined)
        return loss + (joined / dist.get_world_size() - loss.detach()), num_rows

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(negatives={self.negatives!r}, "
            f"chunk_size={self.chunk_size}, product_scale={self.product_scale!r})"
        )


class PairwiseInfoNCE(TotalCorrelationLoss):
    r"""Aligns views pair by pair, for comparison: the mean of InfoNCE over all pairs.

    The same loss of two views at a time, with the same candidates and the same learned scale; see
    `"Representation Learning with Contrastive Predictive Coding"
    <https://arxiv.org/abs/1807.03748>`_. Arguments, shapes and errors are those of
    :class:`TotalCorrelationLoss`.

    Example:
        >>> import torch
        >>> PairwiseInfoNCE()([torch.randn(8, 4) for _ in range(3)]).shape
        torch.Size([])
    """

    def forward(
        self,
        tensors: Sequence[Tensor],
        masks: Sequence[Tensor | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        r"""The mean over pairs; a row counts in the pairs of which it has both.

        Args:
            tensors: Two or more tensors ``[N, D]``.
            masks: As in :class:`TotalCorrelationLoss`.
            generator: Draws the permutations.
        """
        if len(tensors) < 2:
            raise ValueError(f"'tensors' must hold two or more (got {len(tensors)})")
        masks = [None] * len(tensors) if masks is None else masks
        losses = [
            super(PairwiseInfoNCE, self).forward([a, b], [mask_a, mask_b], generator)
            for (a, mask_a), (b, mask_b) in combinations(zip(tensors, masks, strict=True), 2)
        ]
        return torch.stack(losses).mean()


def _complete_rows(
    tensors: Sequence[Tensor], masks: Sequence[Tensor | None] | None
) -> Sequence[Tensor]:
    listed = isinstance(tensors, list | tuple)
    if not listed or not all(isinstance(x, Tensor) for x in tensors):
        got = type(tensors).__name__
        if isinstance(tensors, Tensor):
            got = f"a tensor {list(tensors.shape)}"
        elif listed:
            got = f"{got} of {', '.join(type(x).__name__ for x in tensors)}"
        raise ValueError(
            f"'tensors' must be a list or tuple of tensors [N, D], as in loss([a, b]) (got {got})"
        )
    if len(tensors) < 2:
        raise ValueError(f"'tensors' must hold two or more (got {len(tensors)})")
    for i, tensor in enumerate(tensors):
        if tensor.dim() != 2:
            raise ValueError(f"'tensors' must be [N, D] each (number {i} is {list(tensor.shape)})")
        if tensor.shape != tensors[0].shape:
            raise ValueError(
                f"'tensors' must share one shape [N, D]: the first has "
                f"{list(tensors[0].shape)}, number {i} has {list(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"'tensors' must be floating point (number {i} is {tensor.dtype})")
    if masks is None:
        return tensors
    if len(masks) != len(tensors):
        raise ValueError(f"'masks' must hold {len(tensors)} (got {len(masks)})")
    present = [mask for mask in masks if mask is not None]
    for mask in present:
        if not isinstance(mask, Tensor):
            raise ValueError(f"each of 'masks' must be a tensor (got {type(mask).__name__})")
        if mask.shape != tensors[0].shape[:1] or mask.dtype != torch.bool:
            raise ValueError(
                f"each of 'masks' must be bool [{tensors[0].size(0)}] "
                f"(got {mask.dtype} {list(mask.shape)})"
            )
    if not present:
        return tensors
    complete = torch.stack(present).all(dim=0).nonzero().view(-1)
    return [tensor.index_select(0, complete) for tensor in tensors]


def _unit_rows(x: Tensor, number: int) -> Tensor:
    if not x.isfinite().all():
        raise ValueError(f"'tensors' must be finite (number {number} is not)")
    x = upcast(x)
    if x.numel() > 0:
        # The square of a large entry would overflow.
        x = x / x.detach().abs().amax(dim=1, keepdim=True).clamp(min=1)
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return (x / norm.clamp(min=1e-12)).masked_fill(norm < 1e-12, 0)


class _Limit(torch.autograd.Function):
    """A parameter up to its limit; beyond it only a gradient that leads back passes."""

    @staticmethod
    def forward(ctx, x, limit):  # type: ignore[no-untyped-def]
        ctx.beyond = x > limit
        return x.clamp(max=limit)

    @staticmethod
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        return grad_output.where(~ctx.beyond, grad_output.clamp(min=0)), None


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, sizes):  # type: ignore[no-untyped-def]
        start = sum(sizes[: dist.get_rank()])
        ctx.own = slice(start, start + x.size(0))
        padded = x.new_zeros(max(sizes), x.size(1))
        padded[: x.size(0)] = x
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        total = grad_output.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.own], None


def _gather_rows(tensors: Sequence[Tensor]) -> tuple[Sequence[Tensor], slice]:
    """The tensors of all processes, one below another, and where this process's rows lie."""
    shape = torch.tensor([*tensors[0].shape, len(tensors)], device=tensors[0].device)
    shapes = [torch.empty_like(shape) for _ in range(dist.get_world_size())]
    dist.all_gather(shapes, shape)
    sizes, widths, counts = zip(*(x.tolist() for x in shapes), strict=True)
    if len(set(widths)) > 1 or len(set(counts)) > 1:
        raise ValueError(
            f"'tensors' must have one number and width in all processes "
            f"(got numbers {list(counts)}, widths {list(widths)})"
        )
    joined = _Gather.apply(torch.cat(list(tensors), dim=1), list(sizes))
    start = sum(sizes[: dist.get_rank()])
    return joined.chunk(len(tensors), dim=1), slice(start, start + tensors[0].size(0))
