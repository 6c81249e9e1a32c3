from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import LayerNorm, Linear, Sequential, SiLU

from gtc_pyg.functional import normalize_rows, spmm
from gtc_pyg.graph.csr_graph import CSRGraph


class UserView(Sequential):
    r"""A user as a denoiser sees them: a small network of the mean content of their items (ours).

    .. math::
        v_u = \mathrm{norm} \big( W_2 \, \mathrm{SiLU}(W_1 [\mathrm{norm}(\textstyle
        \frac{1}{|N(u)|} \sum_{i \in N(u)} x_i), d_u]) \big)

    with :math:`d_u` what :func:`directions_of_ids` says, where ``user_ids``. Whoever has the same
    items is seen alike, but for that; users who came after training are seen, too. No gradient
    passes to the content.

    Args:
        channels: Width :math:`D`.
        user_ids: Whether :math:`d_u` is given.
    """

    def __init__(self, channels: int, user_ids: bool = False) -> None:
        super().__init__(
            Linear(2 * channels if user_ids else channels, channels),
            SiLU(),
            Linear(channels, channels),
            LayerNorm(channels, elementwise_affine=False),
        )

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        for lin in (m for m in self if isinstance(m, Linear)):
            lin.reset_parameters()

    def of(self, x: Tensor, graph: CSRGraph, user: Tensor | None, d: Tensor | None) -> Tensor:
        r"""Users by their items.

        Args:
            x: Encoded content of the items ``[I, D]``.
            graph: The interactions.
            user: Which users, ascending and none twice ``[N]``; all where ``None``.
            d: Of these users ``[N, D]``, where ``user_ids``.

        Returns:
            ``[N, D]``.
        """
        seen = spmm(*graph.items_of(user), x.detach())
        seen = F.layer_norm(seen, seen.shape[1:])
        return self(seen if d is None else torch.cat([seen, d], dim=-1))


def directions_of_ids(
    graph: CSRGraph, user: Tensor | None, user_emb: Tensor, item_emb: Tensor
) -> Tensor:
    r"""What ID embeddings say of users: their own, and the mean of their items'.

    .. math::
        d_u = \mathrm{norm} \big( \bar e_u + \bar m_u \big), \qquad
        m_u = \frac{1}{|N(u)|} \sum_{i \in N(u)} \bar e_i, \qquad \bar e = e / |e|

    Args:
        graph: The interactions.
        user: Which users, as in :meth:`UserView.of`.
        user_emb: Embeddings of all users ``[U, D]``.
        item_emb: Embeddings of the items at unit length ``[I, D]``.

    Returns:
        ``[N, D]``.
    """
    own = user_emb if user is None else user_emb.index_select(0, user)
    out = normalize_rows(own) + normalize_rows(spmm(*graph.items_of(user), item_emb))
    return F.layer_norm(out, out.shape[1:])
