from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Embedding

from gtc_pyg.functional import check_edges, check_least, normalize_rows, ridge_map
from gtc_pyg.models.csr_graph import USER_TO_ITEM, CSRGraph
from gtc_pyg.models.make_graph import interactions_graph


class UserSide(NamedTuple):
    r"""How a model makes the final embedding of a user, all items being as they were trained."""

    user: Tensor
    """Where trained users start, as the model propagates them ``[U, D]``."""
    item: Tensor
    """The items' ID embeddings ``[I, D]``, likewise."""
    embed: Callable[[CSRGraph, Tensor], Tensor]
    """Interactions of new users with the items, and their start ``[N, D]``, to ``[N, K]``."""
    start: Callable[[Tensor], Tensor] | None = None
    """Rows of ``user_emb`` as the model propagates them; as they are where ``None``."""


class UserEmbedder:
    r"""Embeds users who came after training from their items alone, in milliseconds (ours).

    Items stay as they were trained. A user is what :meth:`GraphRecommender.forward` makes of a user
    with these items, step by step: what is propagated to them, and in a
    :class:`~gtc_pyg.models.GTC` their gates, weights of modalities, filtered content and what a
    low-pass filter says of their items. All of it depends on sums over their items, of rows that
    are computed once.

    One thing a new user lacks, an ID embedding :math:`e_u`. It is predicted from the mean direction
    of the items' ID embeddings by a ridge regression, which trained users teach, with the penalty
    of their lowest leave-one-out error:

    .. math::
        \hat e_u = A \, \frac{m_u}{|m_u|} + b, \qquad
        m_u = \frac{1}{|N(u)|} \sum_{i \in N(u)} \frac{e_i}{|e_i|}

    A user without items gets the mean :math:`e_u` of the trained users: what they then see is
    nearly what is popular. ``docs/new_users.md`` has what was measured, and
    ``benchmarks/notes.md`` what else was tried for :math:`e_u`.

    Made by :meth:`GraphRecommender.user_embedder`, of a model as it is: after further training make
    another one.

    Args:
        side: How the model makes a user.
        graph: The interactions of training.

    Raises:
        ValueError: Where fewer than two users have interactions.
    """

    def __init__(self, side: UserSide, graph: CSRGraph) -> None:
        self.num_items = graph.num_items
        self._embed, self._start = side.embed, side.start
        self._unit = normalize_rows(side.item)
        trained = graph.num_items_of_users > 0
        if int(trained.sum()) < 2:
            raise ValueError(
                f"'edge_index_dict' must hold interactions of at least two users, to learn from "
                f"(got {int(trained.sum())})"
            )
        direction = normalize_rows(graph.mean_of_items(self._unit))[trained]
        self._mean = side.user[trained].mean(dim=0)
        self._predict = ridge_map(direction, side.user[trained])

    @torch.no_grad()
    def __call__(
        self, edge_index: Tensor, num_users: int, user_emb: Tensor | None = None
    ) -> Tensor:
        r"""Embeddings to be ranked by, like the users of :meth:`GraphRecommender.forward`.

        Args:
            edge_index: Interactions ``[2, E]``: positions among the new users, rows of the items.
                Their order does not matter, and what stands twice counts once.
            num_users: Number of new users :math:`N`; not all of them need items.
            user_emb: Rows of the model's ``user_emb``, ``[N, D]``, where they are known: with those
                of trained users and their training interactions the result is that of
                :meth:`GraphRecommender.forward`. Predicted where ``None``.

        Returns:
            ``[N, K]``.

        Raises:
            ValueError: For an item that the model has no row for, a position that is not below
                ``num_users``, or tensors of another shape.
        """
        if isinstance(edge_index, Tensor):
            edge_index = edge_index.to(self._unit.device)
        graph = new_users(edge_index, num_users, self.num_items)
        if user_emb is None:
            return self._embed(graph, self.start(graph))
        if user_emb.shape != (num_users, self._mean.numel()):
            raise ValueError(
                f"'user_emb' must be [{num_users}, {self._mean.numel()}], a row for each user (got "
                f"{list(user_emb.shape)})"
            )
        return self._embed(graph, user_emb if self._start is None else self._start(user_emb))

    @torch.no_grad()
    def start(self, graph: CSRGraph) -> Tensor:
        r"""The predicted ID embeddings, as the model propagates them.

        Args:
            graph: What :func:`new_users` gives.

        Returns:
            ``[N, D]``.
        """
        start = self._predict(normalize_rows(graph.mean_of_items(self._unit)))
        return torch.where((graph.num_items_of_users > 0).view(-1, 1), start, self._mean)


def new_users(edge_index: Tensor, num_users: int, num_items: int) -> CSRGraph:
    r"""The interactions of users who are in no graph yet, each of them once.

    Args:
        edge_index: Positions of the users and rows of the items ``[2, E]``.
        num_users: Number of users.
        num_items: Number of items.
    """
    check_least(0, num_users=num_users)
    user, item = check_edges(edge_index, num_users, num_items)
    pairs = (user * num_items + item).unique()
    edge_index = torch.stack([pairs // num_items, pairs % num_items])
    return interactions_graph(edge_index, num_users, num_items)


def propagated(
    graph: CSRGraph, ego: Tensor, num_layers: int
) -> Callable[[CSRGraph, Tensor], Tensor]:
    r"""Users of LightGCN's mean over the layers, the items' layers being as they were trained.

    .. math::
        z_u = \frac{1}{L + 1} \Big( e_u + \frac{1}{\sqrt{|N(u)|}} \sum_{i \in N(u)} t_i \Big),
        \qquad t_i = \frac{1}{\sqrt{|N(i)|}} \sum_{l=0}^{L-1} h_i^{(l)}

    Args:
        graph: The interactions of training.
        ego: Where its users and items start, stacked ``[U + I, D]``.
        num_layers: :math:`L`.

    Returns:
        Interactions of other users with the items, and the users' start ``[N, D]``, to ``[N, D]``.
    """
    if num_layers == 0:
        return lambda _, start: start.clone()
    layers = num_layers * graph.layer_mean(ego, num_layers - 1)[graph.num_users :]
    told = layers * item_degree(graph, ego.dtype).rsqrt()

    def users(new: CSRGraph, start: Tensor) -> Tensor:
        degree = new.num_items_of_users.to(start.dtype).view(-1, 1)
        return (start + degree.sqrt() * new.mean_of_items(told)) / (num_layers + 1)

    return users


def propagated_side(
    graph: CSRGraph, user_emb: Embedding, item_emb: Embedding, num_layers: int
) -> UserSide:
    r"""Of a model whose users are LightGCN's, see :func:`propagated`."""
    user, item = user_emb.weight, item_emb.weight
    return UserSide(user, item, propagated(graph, torch.cat([user, item]), num_layers))


def item_degree(graph: CSRGraph, dtype: torch.dtype) -> Tensor:
    r"""Number of users of each item, 1 where there are none, ``[I, 1]``."""
    degree = graph[USER_TO_ITEM].crow_indices().diff()
    return degree.clamp(min=1).to(dtype).view(-1, 1)
