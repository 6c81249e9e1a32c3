from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gtc_pyg.functional import normalize_rows, spmm
from gtc_pyg.graph.csr_graph import CSRGraph


class Filtered(NamedTuple):
    r"""Content of one modality, filtered for each user.

    .. math:: \hat x_{ui} = \text{base}_i + V (g_u \odot h_i)

    is affine in :math:`g_u \odot h_i`, so what all items of a user tell that user
    (:meth:`for_users`), and inner products with all items (:meth:`factors`), need no network per
    pair. Made by :class:`~gtc_pyg.models.ContentFilter`.
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
    """How much they listen to the modality, :math:`a`, between 0 and 2 ``[N]``."""
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
        r"""What a user's items tell them, filtered for them: the mean of :math:`\hat x_{ui}`.

        Args:
            graph: The interactions.

        Returns:
            ``[N, D]``, of the users that it was asked for; zeros without items.
        """
        items = graph.items_of(self.user_id)
        return gated(spmm(*items, self.base), spmm(*items, self.h), self.gate, self.to_content)

    def factors(self, p: Tensor) -> tuple[Tensor, Tensor]:
        r"""Vectors whose inner products are :math:`\langle p_u, \hat x_{ui} \rangle` of all pairs.

        .. math::
            \langle p_u, \hat x_{ui} \rangle = \langle p_u, \text{base}_i \rangle
            + \langle g_u \odot V^\top p_u, h_i \rangle

        Args:
            p: What each user looks for ``[N, D]``.

        Returns:
            ``[N, D + H]`` and ``[I, D + H]``.
        """
        return self.user_factors(p), self.item_factors()

    def user_factors(self, p: Tensor) -> Tensor:
        r"""The first of :meth:`factors`."""
        wanted = p @ self.to_content
        if self.gate is not None:
            wanted = wanted * self.gate
        return torch.cat([p, wanted], dim=-1)

    def item_factors(self) -> Tensor:
        r"""The second of :meth:`factors`."""
        return torch.cat([self.base, self.h], dim=-1)


def hear(
    users: Tensor,
    filtered: Mapping[str, Filtered],
    content: Mapping[str, Tensor],
    strength: float,
    filter_in: str,
) -> list[Tensor]:
    r"""What users' items tell them, :math:`\lambda a_u^m p_u^m / |p_u^m|`, where it is to act.

    Args:
        users: ``[N, D]``.
        filtered: Each modality, for these users.
        content: :meth:`Filtered.for_users` of each.
        strength: :math:`\lambda`.
        filter_in: ``'messages'``, ``'score'`` or ``'both'``.

    Returns:
        Users with what is added to them, and their factors in the score, modality by modality.
    """
    parts = []
    for name, f in filtered.items():
        p = strength * f.weight.view(-1, 1) * normalize_rows(content[name])
        if filter_in != "score":
            users = users + p
        if filter_in != "messages":
            parts.append(f.user_factors(p))
    return [users, *parts]


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
