from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import upcast


class SimilarityGate(Module):
    r"""Fuses the ID embedding with each modality by how much they agree.

    .. math::
        w_i = \mathrm{softmax}_k \cos(e_i, r_i^k), \qquad
        z_i = e_i + \sum_k w_{ik} r_i^k, \qquad r_i^0 = e_i, \; r_i^m = \hat x_i^m

    from `"User-Aware Conditional Generative Total Correlation Learning for Multi-Modal
    Recommendation" <https://arxiv.org/abs/2604.03014>`_.
    Ours takes the cosine, so that no modality wins by its length, however long or short: each row
    is divided by its largest entry first, which keeps its square within range. A row of zeros has
    the cosine 0. The gate has no weights.

    Args:
        normalized: Whether all inputs are of unit length, which is then not computed again.

    Shapes:
        - **input:** ID embeddings :math:`(N, D)`, one or more modalities :math:`(N, D)`
        - **output:** fused :math:`(N, D)`, weights :math:`(N, M + 1)` that sum to one

    Example:
        >>> import torch
        >>> x, image, text = torch.eye(2), torch.eye(2), -torch.eye(2)
        >>> fused, weight = SimilarityGate()(x, [image, text])
        >>> weight[0]
        tensor([0.4683, 0.4683, 0.0634])

    Raises:
        ValueError: Where there is no modality, or one has another shape than the embeddings.
    """

    def __init__(self, normalized: bool = False) -> None:
        super().__init__()
        self.normalized = normalized

    def reset_parameters(self) -> None:
        r"""Does nothing: there are no weights."""

    def forward(self, x: Tensor, modalities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r"""Fuses.

        Args:
            x: ID embeddings ``[N, D]``.
            modalities: Filtered content, each ``[N, D]``.
        """
        _check(x, modalities)
        candidates = [x, *modalities]
        unit = candidates if self.normalized else [self._unit(c) for c in candidates]
        own = unit[0].detach()  # its cosine with itself is 1, or 0 of zeros: no gradient
        pairs = [(own, own), *((unit[0], u) for u in unit[1:])]
        cosine = torch.stack([(a * b).sum(dim=-1) for a, b in pairs], dim=-1)
        weight = cosine.softmax(dim=-1)
        return _weighted(candidates, weight), weight

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        # A constant factor for the gradient too: the cosine does not depend on it.
        top = x.detach().abs().amax(dim=-1, keepdim=True)
        x = torch.where(top == 0, 0, x / top.masked_fill(top == 0, 1))  # no gradient to zeros
        return F.normalize(upcast(x), dim=-1).to(x.dtype)

    def __repr__(self) -> str:
        on = "normalized=True" if self.normalized else ""
        return f"{self.__class__.__name__}({on})"


class UniformGate(Module):
    r"""Fuses the ID embedding with each modality at equal weights, for comparison.

    .. math:: z_i = e_i + \frac{1}{M + 1} \sum_k r_i^k, \qquad r_i^0 = e_i

    Shapes and errors are those of :class:`SimilarityGate`.

    Example:
        >>> import torch
        >>> fused, weight = UniformGate()(torch.eye(2), [torch.ones(2, 2)])
        >>> fused[0]
        tensor([2.0000, 0.5000])
    """

    def forward(self, x: Tensor, modalities: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r"""Fuses.

        Args:
            x: ID embeddings ``[N, D]``.
            modalities: Filtered content, each ``[N, D]``.
        """
        _check(x, modalities)
        candidates = [x, *modalities]
        weight = x.new_zeros(x.size(0), len(candidates)).softmax(dim=-1)
        return _weighted(candidates, weight), weight


def _weighted(candidates: Sequence[Tensor], weight: Tensor) -> Tensor:
    """The first and the weighted sum of all ``[N, D]``."""
    out = candidates[0]
    for k, candidate in enumerate(candidates):
        out = torch.addcmul(out, weight[:, k : k + 1], candidate)
    return out


def _check(x: Tensor, modalities: Sequence[Tensor]) -> None:
    if x.dim() != 2:
        raise ValueError(f"'x' must be [N, D] (got {list(x.shape)})")
    if isinstance(modalities, Tensor):
        raise ValueError(
            f"'modalities' must be a list or tuple of tensors, as in gate(x, [image]) (got a "
            f"tensor {list(modalities.shape)})"
        )
    if len(modalities) == 0:
        raise ValueError("'modalities' must hold one or more (got 0)")
    for i, modality in enumerate(modalities):
        if modality.shape != x.shape:
            raise ValueError(
                f"'modalities' must have the shape of 'x', {list(x.shape)} (number {i} has "
                f"{list(modality.shape)})"
            )
