from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import Embedding, Module
from torch_geometric.typing import Adj, EdgeType

from gtc_pyg.functional import (
    check_ids,
    free_to_read,
    layer_mean,
    select_columns,
    select_rows,
    spmm,
    stack_interactions,
)
from gtc_pyg.graph.row_history import RowHistory

USER_TO_ITEM: EdgeType = ("user", "rates", "item")
ITEM_TO_USER: EdgeType = ("item", "rev_rates", "user")
SIMILAR_ITEMS: EdgeType = ("item", "similar", "item")

EdgeIndexDict = Mapping[EdgeType, Adj]
EdgeWeightDict = Mapping[EdgeType, Tensor]


class SampledNodes(NamedTuple):
    r"""The nodes of a sub-graph."""

    user_id: Tensor
    """Their ids in the whole graph ``[U]``."""
    item_id: Tensor
    """Their ids in the whole graph ``[I]``."""
    user_degree: Tensor
    """Number of items of each user in the whole graph ``[U]``."""
    item_degree: Tensor
    """Number of users of each item in the whole graph ``[I]``."""


class _OfUsers(NamedTuple):
    """What belongs to some users."""

    items: tuple[Tensor, Tensor]  # of the mean over their items, and the transpose
    to_users: Tensor  # of the transposed mean over the users of an item


class CSRGraph(dict[EdgeType, Tensor]):
    r"""The edge types that a recommender reads, as transposed CSR.

    What derives from them is made once, when it is first asked for: a graph must not be changed.
    It may be asked for in inference mode and used in training afterwards.

    Args:
        edges: Edge type to CSR.
        nodes: Of a sub-graph, the sampled nodes; ``None`` where the graph is whole.
        history: Rows that modules in training keep from earlier steps, for one epoch; ``None``
            where every step must be exact. It is not copied or pickled.
    """

    def __init__(
        self,
        edges: Mapping[EdgeType, Tensor],
        nodes: SampledNodes | None = None,
        history: RowHistory | None = None,
    ) -> None:
        super().__init__(edges)
        self.nodes = nodes
        self.history = history
        self._last: tuple[Tensor, int | None, _OfUsers] | None = None
        self.num_items, self.num_users = self[USER_TO_ITEM].shape

    def rows(self, embedding: Embedding, kind: str) -> Tensor:
        r"""The rows of an embedding of all users or items that the graph has, ``[N, D]``.

        Args:
            embedding: Of all ``'user'`` or ``'item'`` nodes.
            kind: Which of them.
        """
        if self.nodes is None:
            return embedding.weight
        return embedding(self.nodes.user_id if kind == "user" else self.nodes.item_id)

    def layer_mean(self, x: Tensor, num_layers: int) -> Tensor:
        r"""Mean over the layers of LightGCN, users and items stacked, ``[U + I, D]``.

        Sampled neighbours stand for all of a node's: with :math:`s` of its :math:`d` neighbours
        each weighs :math:`d / s` times what it does in the whole graph.
        """
        return layer_mean(*self._propagation, x, num_layers)

    def mean_of_items(self, x: Tensor) -> Tensor:
        r"""Mean over the items of each user, ``[I, D]`` to ``[U, D]``; 0 without items."""
        return spmm(*self._items_of_users, x)

    def items_of(self, user: Tensor | None) -> tuple[Tensor, Tensor]:
        r"""The matrix of :meth:`mean_of_items` and its transpose, for some users.

        Args:
            user: Ascending, none twice ``[N]``; all users where ``None``.
        """
        return self._items_of_users if user is None else self._of(user).items

    def check_users(self, user: Tensor) -> Tensor:
        r"""Refuses users that :meth:`items_of` would mistake, where reading them is free: on the
        CPU, and outside of :func:`torch.compile`.

        Args:
            user: As in :meth:`items_of`.

        Returns:
            The same as ``int64``.

        Raises:
            ValueError: Where they are not ascending, or one of them is unknown.
        """
        if not free_to_read(user):
            return user.long()
        user = check_ids(user, self.num_users, "'user' holds user")
        if bool((user[1:] <= user[:-1]).any()):
            twice = user[1:][user[1:] <= user[:-1]][0]
            raise ValueError(
                f"'user' must be ascending and hold nobody twice (got {int(twice)} after one that "
                f"is not below it); torch.unique makes it so"
            )
        return user

    def check_triple(
        self, user: Tensor, pos_item: Tensor, neg_item: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""Refuses what is no batch of users, an item and another item of each; ids out of range
        where reading them is free.

        Args:
            user: ``[B]``.
            pos_item: ``[B]``.
            neg_item: ``[B]``.

        Returns:
            The same as ``int64``.

        Raises:
            ValueError: For other shapes, no row, ids that are no whole numbers or out of range.
        """
        given = {"user": user, "pos_item": pos_item, "neg_item": neg_item}
        for name, ids in given.items():
            if not isinstance(ids, Tensor) or ids.shape != user.shape or ids.dim() != 1:
                got = list(ids.shape) if isinstance(ids, Tensor) else type(ids).__name__
                raise ValueError(
                    f"'user', 'pos_item' and 'neg_item' must be [B] each (got {got} for {name!r})"
                )
            if ids.numel() == 0:
                raise ValueError(f"{name!r} must hold at least one (got none)")
            num = self.num_users if name == "user" else self.num_items
            check_ids(ids[:0] if not free_to_read(ids) else ids, num, f"{name!r} holds")
        return user.long(), pos_item.long(), neg_item.long()

    def _of(self, user: Tensor) -> _OfUsers:
        # One batch asks several times.
        version = None if user.is_inference() else user._version
        last = self._last  # another thread may write it
        if last is None or last[0] is not user or last[1] != version:
            adj, transposed = self._items_of_users
            items = select_rows(adj, user), select_columns(transposed, user)
            found = _OfUsers(items, select_rows(self._users_of_items[1], user))
            last = self._last = (user, version, found)
        return last[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "history": None, "_last": None}

    def rows_of_all(
        self, module: Module, name: str, user: Tensor, rows: Tensor, make: Callable[[], Tensor]
    ) -> Tensor:
        r"""Rows of all users, of which some are given; no gradient passes.

        In training, where there is a :attr:`history` and gradients are asked for, the others are as
        they were when they were last given, or made once at its beginning.

        Args:
            module: Whose rows they are.
            name: Which of its rows.
            user: The users that are given ``[N]``.
            rows: Their rows ``[N, D]``.
            make: Makes the rows of all users ``[U, D]``.
        """
        if self.history is not None and module.training and torch.is_grad_enabled():
            return self.history.rows_of_all(module, name, user, rows, make)
        with torch.no_grad():
            return make()

    def users_of_items(self, user: Tensor | None) -> tuple[Tensor, Tensor]:
        r"""The matrix of the mean over an item's users, and its transpose.

        Args:
            user: Users whose rows of the transpose are wanted, ascending, none twice ``[N]``; all
                where ``None``.

        Returns:
            CSR ``[I, U]`` and ``[N, I]``.
        """
        adj, transposed = self._users_of_items
        return adj, transposed if user is None else self._of(user).to_users

    def mean_of_users(self, x: Tensor) -> Tensor:
        r"""Mean over the users of each item, ``[U, D]`` to ``[I, D]``; 0 without users."""
        return spmm(*self._users_of_items, x)

    def smooth(self, x: Tensor) -> Tensor:
        r"""Sum over similar items, ``[I, D]`` to ``[I, D]``."""
        return spmm(*self._similar, x)

    def with_similar(self, x: Tensor, num_layers: int) -> Tensor:
        r"""Items and what similar ones give them in ``num_layers`` layers, ``[I, D]``; as they are
        with none."""
        h = x
        for _ in range(num_layers):
            h = self.smooth(h)
        return x + h if num_layers > 0 else x

    def neighbors(self, item: int, num_layers: int, like: Tensor) -> tuple[Tensor, Tensor]:
        r"""Items that reach an item over so many layers of the item graph, which may be one of
        them, and their weights in the type of ``like``, ``[R]`` each."""
        rows = torch.tensor([item], device=self[USER_TO_ITEM].device)
        weight = like.new_ones(1)
        if num_layers == 0:
            return rows[:0], weight[:0]
        for _ in range(num_layers):
            edges = select_rows(self[SIMILAR_ITEMS], rows)
            weight = weight.repeat_interleave(edges.crow_indices().diff()) * edges.values().to(
                weight
            )
            rows, position = edges.col_indices().unique(return_inverse=True)
            weight = weight.new_zeros(rows.numel()).index_add_(0, position, weight)
        return rows, weight

    @cached_property
    @torch.inference_mode(False)
    def num_items_of_users(self) -> Tensor:
        r"""``[U]``."""
        return self[ITEM_TO_USER].crow_indices().diff()

    @property
    def user_items(self) -> Tensor:
        r"""Items of all users, user by user and ascending in each ``[E]``."""
        return self[ITEM_TO_USER].col_indices()

    @property
    def interactions(self) -> Tensor:
        r"""Users and items of every interaction ``[2, E]``, in the order of items."""
        to_item = self[USER_TO_ITEM]
        item = torch.arange(self.num_items, device=to_item.device)
        item = item.repeat_interleave(to_item.crow_indices().diff())
        return torch.stack([to_item.col_indices(), item])

    def contains(self, user: Tensor, item: Tensor) -> Tensor:
        r"""Whether each pair is an interaction of the graph, ``[N]`` (bool)."""
        pairs = user.long() * self[ITEM_TO_USER].size(1) + item.long()
        return self._pairs[torch.searchsorted(self._pairs, pairs)] == pairs

    @cached_property
    @torch.inference_mode(False)
    def _pairs(self) -> Tensor:
        to_user = self[ITEM_TO_USER]
        user = torch.arange(to_user.size(0), device=to_user.device)
        user = user.repeat_interleave(self.num_items_of_users)
        pairs = (user * to_user.size(1) + to_user.col_indices()).sort().values
        return torch.cat([pairs, pairs.new_full((1,), to_user.numel())])  # ends beyond any pair

    @cached_property
    @torch.inference_mode(False)
    def symmetric(self) -> Tensor:
        r"""Both directions in one matrix, see :func:`~gtc_pyg.functional.stack_interactions`."""
        return stack_interactions(self[USER_TO_ITEM], self[ITEM_TO_USER])

    @cached_property
    @torch.inference_mode(False)
    def _propagation(self) -> tuple[Tensor, Tensor]:
        if self.nodes is None:
            return self.symmetric, self.symmetric
        adj = stack_interactions(self[USER_TO_ITEM], self[ITEM_TO_USER])
        sampled = adj.crow_indices().diff()
        degree = torch.cat([self.nodes.user_degree, self.nodes.item_degree]).to(adj.dtype)
        inv_sqrt = degree.clamp(min=1).rsqrt()
        value = (degree * inv_sqrt / sampled.clamp(min=1)).repeat_interleave(sampled)
        adj = _with_values(adj, value * inv_sqrt[adj.col_indices()])
        return adj, adj.t().to_sparse_csr()

    @cached_property
    @torch.inference_mode(False)
    def _items_of_users(self) -> tuple[Tensor, Tensor]:
        return self._row_mean(self[ITEM_TO_USER], self[USER_TO_ITEM])

    @cached_property
    @torch.inference_mode(False)
    def _users_of_items(self) -> tuple[Tensor, Tensor]:
        return self._row_mean(self[USER_TO_ITEM], self[ITEM_TO_USER])

    def _row_mean(self, adj: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
        """The matrix with rows that sum to one, and its transpose."""
        degree = adj.crow_indices().diff()
        inverse = 1 / degree.clamp(min=1).to(adj.dtype)
        mean = _with_values(adj, inverse.repeat_interleave(degree))
        if self.nodes is None:
            return mean, _with_values(reverse, inverse[reverse.col_indices()])
        return mean, mean.t().to_sparse_csr()  # each direction is a sample of its own

    @cached_property
    @torch.inference_mode(False)
    def _similar(self) -> tuple[Tensor, Tensor]:
        similar = self[SIMILAR_ITEMS]
        return similar, similar.t().to_sparse_csr()


def _with_values(adj: Tensor, value: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(adj.crow_indices(), adj.col_indices(), value, size=adj.shape)
