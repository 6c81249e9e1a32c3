from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gtc_pyg.functional import spmm
from gtc_pyg.graph import CSRGraph


class FilteredContent(NamedTuple):
    r"""Content of one modality, filtered for each user.

    .. math:: \hat x_{ui} = \text{base}_i + V (g_u \odot h_i)

    is affine in :math:`g_u \odot h_i`, so the mean over all items of a user (:meth:`for_users`)
    needs no network per pair. Made by :class:`~gtc_pyg.models.ContentFilter`.
    """

    x: Tensor
    """Encoded content ``[I, D]``."""
    x_t: Tensor
    """Where the last denoising step starts ``[I, D]``."""
    base: Tensor
    """What the last denoising step leaves of it for everybody ``[I, D]``."""
    h: Tensor
    """The trunk's features at that step ``[I, H]``, free of any one user."""
    to_content: Tensor
    """:math:`V`, ``[D, H]``."""
    x_hat: Tensor
    """Filtered by the mean gate of the item's users ``[I, D]``."""
    cond: Tensor
    """The items' conditions ``[I, D]``."""
    user: Tensor | None
    """The users asked for as the denoiser sees them ``[N, D]``; not with ``'item'``."""
    gate: Tensor | None
    """Their gates ``[N, H]``, where the condition is ``'user'``."""
    weight: Tensor
    """The weight of the modality for them, :math:`a`, between 0 and 2 ``[N]``."""
    user_id: Tensor | None
    """Who they are ``[N]``; all users where ``None``."""

    def for_pairs(self, row: Tensor, item: Tensor) -> Tensor:
        r"""Content filtered for pairs of users and items, :math:`\hat x_{ui}`.

        Args:
            row: The user's position among those that it was asked for ``[...]``.
            item: ``[...]``, or a shape that broadcasts with it.

        Returns:
            ``[..., D]``.
        """
        gate = None if self.gate is None else _rows(self.gate, row)
        return gated(_rows(self.base, item), _rows(self.h, item), gate, self.to_content)

    def for_users(self, graph: CSRGraph) -> Tensor:
        r"""The mean content of each user's items, filtered for that user.

        Args:
            graph: The interactions.

        Returns:
            ``[N, D]``, of the users that it was asked for; zeros without items.
        """
        items = graph.items_of(self.user_id)
        return gated(spmm(*items, self.base), spmm(*items, self.h), self.gate, self.to_content)


def gated(base: Tensor, h: Tensor, gate: Tensor | None, to_content: Tensor) -> Tensor:
    r""":math:`\text{base} + V (g \odot h)`, ``[..., D]``.

    Args:
        base: ``[..., D]``.
        h: ``[..., H]``.
        gate: ``[..., H]``, or a shape that broadcasts with it; 1 where ``None``.
        to_content: :math:`V`, ``[D, H]``.
    """
    h = h if gate is None else gate * h
    if base.shape[:-1] == h.shape[:-1] and h.dim() == 2:
        return torch.addmm(base, h, to_content.t())
    return base + h @ to_content.t()


def _rows(x: Tensor, index: Tensor) -> Tensor:
    return x.index_select(0, index.reshape(-1)).view(*index.shape, x.size(1))
