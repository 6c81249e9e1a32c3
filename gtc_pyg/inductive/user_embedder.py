from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor

from gtc_pyg.functional import check_edges, check_least, normalize_rows, ridge_map
from gtc_pyg.graph.csr_graph import USER_TO_ITEM, CSRGraph
from gtc_pyg.graph.make_graph import interactions_graph


class UserAdapter(Protocol):
    r"""How a model makes the embedding of a user, all items being as they were trained."""

    user: Tensor
    """ID embeddings of the trained users, as the model propagates them ``[U, D]``."""
    item: Tensor
    """The items' ID embeddings ``[I, D]``, likewise."""

    def embed(self, new: CSRGraph, ego: Tensor) -> Tensor:
        r"""New users ``[N, K]``.

        Args:
            new: Their interactions with the items.
            ego: Their ID embeddings, as the model propagates them ``[N, D]``.
        """


class Columns(Protocol):
    r"""Further columns of users, from their items alone: the heads of a model."""

    def users(self, graph: CSRGraph) -> Tensor:
        r"""``[N, C]``."""


class UserEmbedder:
    r"""Embeds users who came after training from their items alone, in milliseconds (ours).

    Items stay as they were trained. A user is what :meth:`GraphRecommender.forward` makes of a user
    with these items, step by step: what is propagated to them, and in a
    :class:`~gtc_pyg.models.GTC` their gates, weights of modalities and filtered content, and the
    columns of heads. All of it depends on sums over their items, of rows that
    are computed once.

    One thing a new user lacks, an ID embedding :math:`e_u`. It is predicted from the mean direction
    of the items' ID embeddings by a ridge regression on the trained users, with the penalty of
    their lowest leave-one-out error:

    .. math::
        \hat e_u = A \, \frac{m_u}{|m_u|} + b, \qquad
        m_u = \frac{1}{|N(u)|} \sum_{i \in N(u)} \frac{e_i}{|e_i|}

    A user without items gets the mean :math:`e_u` of the trained users: what they then see is
    nearly what is popular. ``docs/new_users.md`` has what was measured, and
    ``benchmarks/notes.md`` what else was tried for :math:`e_u`.

    Made by :meth:`GraphRecommender.user_embedder`, of a model as it is: after further training make
    another one.

    Args:
        adapter: How the model makes a user.
        graph: The interactions of training.
        columns: What stands beside, of each user.
        transform_user: Rows of the model's ``user_emb`` to what it propagates, both ``[N, D]``; the
            same where ``None``.

    Raises:
        ValueError: Where fewer than two users have interactions.
    """

    def __init__(
        self,
        adapter: UserAdapter,
        graph: CSRGraph,
        columns: Iterable[Columns] = (),
        transform_user: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.num_items = graph.num_items
        self._adapter, self._columns = adapter, list(columns)
        self._transform_user = transform_user or (lambda user_emb: user_emb)
        self._unit = normalize_rows(adapter.item)
        trained = graph.num_items_of_users > 0
        if int(trained.sum()) < 2:
            raise ValueError(
                f"'edge_index_dict' must hold interactions of at least two users, to learn from "
                f"(got {int(trained.sum())})"
            )
        direction = normalize_rows(graph.mean_of_items(self._unit))[trained]
        self._mean = adapter.user[trained].mean(dim=0)
        self._predict = ridge_map(direction, adapter.user[trained])

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
            ego = self.predict_user_emb(graph)
        elif user_emb.shape != (num_users, self._mean.numel()):
            raise ValueError(
                f"'user_emb' must be [{num_users}, {self._mean.numel()}], a row for each user (got "
                f"{list(user_emb.shape)})"
            )
        else:
            ego = self._transform_user(user_emb)
        own = self._adapter.embed(graph, ego)
        return torch.cat([own, *(columns.users(graph) for columns in self._columns)], dim=-1)

    @torch.no_grad()
    def predict_user_emb(self, graph: CSRGraph) -> Tensor:
        r"""The predicted ID embeddings, as the model propagates them.

        Args:
            graph: What :func:`new_users` gives.

        Returns:
            ``[N, D]``.
        """
        ego = self._predict(normalize_rows(graph.mean_of_items(self._unit)))
        return torch.where((graph.num_items_of_users > 0).view(-1, 1), ego, self._mean)


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


class PropagatedUsers:
    r"""Users of LightGCN's mean over the layers, the items' layers being as they were trained.

    .. math::
        z_u = \frac{1}{L + 1} \Big( e_u + \frac{1}{\sqrt{|N(u)|}} \sum_{i \in N(u)} t_i \Big),
        \qquad t_i = \frac{1}{\sqrt{|N(i)|}} \sum_{l=0}^{L-1} h_i^{(l)}

    Args:
        graph: The interactions of training.
        user: ID embeddings of its users ``[U, D]``.
        item: What its items propagate ``[I, D]``.
        num_layers: :math:`L`.
        scale: Factor on the result.
    """

    def __init__(
        self, graph: CSRGraph, user: Tensor, item: Tensor, num_layers: int, scale: float = 1.0
    ) -> None:
        self.user, self.item = user, item
        self.num_layers, self.scale = num_layers, scale
        self.item_messages: Tensor | None = None
        if num_layers > 0:
            ego = torch.cat([user, item])
            layers = num_layers * graph.layer_mean(ego, num_layers - 1)[graph.num_users :]
            self.item_messages = layers * item_degree(graph, ego.dtype).rsqrt()

    def embed(self, new: CSRGraph, ego: Tensor) -> Tensor:
        return self.scale * self.propagate(new, ego)

    def propagate(self, new: CSRGraph, ego: Tensor) -> Tensor:
        r""":math:`z_u`, ``[N, D]``."""
        if self.item_messages is None:
            return ego.clone()
        degree = new.num_items_of_users.to(ego.dtype).view(-1, 1)
        received = degree.sqrt() * new.mean_of_items(self.item_messages)
        return (ego + received) / (self.num_layers + 1)


def item_degree(graph: CSRGraph, dtype: torch.dtype) -> Tensor:
    r"""Number of users of each item, 1 where there are none, ``[I, 1]``."""
    degree = graph[USER_TO_ITEM].crow_indices().diff()
    return degree.clamp(min=1).to(dtype).view(-1, 1)
