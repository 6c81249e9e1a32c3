from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, Parameter

from gtc_pyg.functional import total_correlation


class TotalCorrelationLoss(Module):
    r"""Aligns two or more views of the same rows at once, through their total correlation.

    The contrast of `"User-Aware Conditional Generative Total Correlation Learning for
    Multi-Modal Recommendation" <https://arxiv.org/abs/2604.03014>`_ (the multilinear critic of
    `Symile <https://arxiv.org/abs/2411.01053>`_). Rows are L2-normalised; for every anchor the true
    row of the others competes with rows in which every other tensor is permuted on its own. With
    ``'n'`` and fresh rows, :math:`\log K - L` of :math:`K` candidates is in expectation a lower
    bound of

    .. math:: TC(r^1, \dots, r^T) = D_{KL}(p(r^1, \dots, r^T) \,\|\, \prod_b p(r^b))

    in nats. See :func:`gtc_pyg.functional.total_correlation` for one row of logits.

    Args:
        negatives: ``'n'`` (one candidate a row) or ``'n_squared'`` (all :math:`N^{T-1}` of them).
        chunk_size: Rows whose logits exist at the same time; memory is ``O(N * chunk_size)``.
        product_scale: The product of :math:`T - 1` unit vectors shrinks like
            :math:`D^{-(T-2)/2}`, so at the published scale the contrast of three or more
            tensors is nearly flat. ``'sqrt_dim'`` (ours) multiplies it by :math:`D^{(T-2)/2}`;
            ``'none'`` is the published form. With two tensors they are the same.
        init_logit_scale: Start of the learned ``logit_scale``, in log form; as published.
        max_logit_scale: Upper limit of the scale while it learns, in log form.

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

    def __init__(
        self,
        negatives: str = "n",
        chunk_size: int = 1024,
        product_scale: str = "sqrt_dim",
        init_logit_scale: float = math.log(1 / 0.07),
        max_logit_scale: float = math.log(100.0),
    ) -> None:
        super().__init__()
        if negatives not in ("n", "n_squared"):
            raise ValueError(f"'negatives' must be 'n' or 'n_squared' (got {negatives!r})")
        if product_scale not in ("none", "sqrt_dim"):
            raise ValueError(
                f"'product_scale' must be 'none' or 'sqrt_dim' (got {product_scale!r})"
            )
        self.negatives = negatives
        self.chunk_size = chunk_size
        self.product_scale = product_scale
        self.init_logit_scale = init_logit_scale
        self.max_logit_scale = max_logit_scale
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
            masks: Presence of each tensor's rows; a row that lacks one is no positive and no
                candidate.
            generator: Draws the permutations.

        Raises:
            ValueError: For fewer than two tensors, or shapes that do not agree.
        """
        if len(tensors) < 2:
            raise ValueError(f"'tensors' must hold two or more (got {len(tensors)})")
        for i, tensor in enumerate(tensors):
            if tensor.dim() != 2 or tensor.shape != tensors[0].shape:
                raise ValueError(
                    f"'tensors' must share one shape [N, D]: the first has "
                    f"{list(tensors[0].shape)}, number {i} has {list(tensor.shape)}"
                )
        if masks is not None:
            tensors = self._complete_rows(tensors, masks)
        scale = self.logit_scale.clamp(max=self.max_logit_scale).exp()
        if self.product_scale == "sqrt_dim":
            scale = scale * tensors[0].size(1) ** ((len(tensors) - 2) / 2)
        tensors = [F.normalize(tensor, dim=-1) for tensor in tensors]
        return total_correlation(tensors, scale, self.negatives, self.chunk_size, generator)

    @staticmethod
    def _complete_rows(
        tensors: Sequence[Tensor], masks: Sequence[Tensor | None]
    ) -> Sequence[Tensor]:
        if len(masks) != len(tensors):
            raise ValueError(f"'masks' must hold {len(tensors)} (got {len(masks)})")
        present = [mask for mask in masks if mask is not None]
        for mask in present:
            if mask.shape != tensors[0].shape[:1]:
                raise ValueError(
                    f"each of 'masks' must be [{tensors[0].size(0)}] (got {list(mask.shape)})"
                )
        if not present:
            return tensors
        complete = torch.stack(present).all(dim=0).nonzero().view(-1)
        return [tensor.index_select(0, complete) for tensor in tensors]

    def __repr__(self) -> str:
        return (
            f"{self.__class__.__name__}(negatives={self.negatives!r}, "
            f"chunk_size={self.chunk_size}, product_scale={self.product_scale!r})"
        )
