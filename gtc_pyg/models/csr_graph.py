from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

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
    spmm_learning,
    stack_interactions,
)

USER_TO_ITEM: EdgeType = ("user", "rates", "item")
ITEM_TO_USER: EdgeType = ("item", "rev_rates", "user")
SIMILAR_ITEMS: EdgeType = ("item", "similar", "item")

History = WeakKeyDictionary[Module, dict[str, Tensor]]
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
        history: Where modules in training keep rows of earlier steps, for one epoch, as in
            `GNNAutoScale <https://arxiv.org/abs/2106.05609>`_; ``None`` where every step must be
            exact. A GTC keeps ``[U, 2D]`` of each modality: 1 GB of a million users, two
            modalities and :math:`D = 64`. It is not copied or pickled.
    """

    def __init__(
        self,
        edges: Mapping[EdgeType, Tensor],
        nodes: SampledNodes | None = None,
        history: History | None = None,
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
        if self._last is None or self._last[0] is not user or self._last[1] != version:
            adj, transposed = self._items_of_users
            items = select_rows(adj, user), select_columns(transposed, user)
            found = _OfUsers(items, select_rows(self._users_of_items[1], user))
            self._last = user, version, found
        return self._last[2]

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
        kept: dict[str, Tensor] = {}
        if self.history is not None and module.training and torch.is_grad_enabled():
            kept = self.history.setdefault(module, kept)
        if name in kept and kept[name].dtype == rows.dtype:
            return kept[name].index_copy_(0, user, rows.detach())
        with torch.no_grad():
            kept[name] = make()
        return kept[name]

    def mean_of_users(self, x: Tensor, learning: tuple[Tensor, Tensor] | None = None) -> Tensor:
        r"""Mean over the users of each item, ``[U, D]`` to ``[I, D]``; 0 without users.

        Args:
            x: ``[U, D]``.
            learning: Users ``[N]`` and their rows ``[N, D]``: these alone get a gradient, the one
                that they would get in ``x``. All of ``x`` where ``None``.
        """
        adj, transposed = self._users_of_items
        if learning is None:
            return spmm(adj, transposed, x)
        user, rows = learning
        return spmm_learning(adj, x, rows, self._of(user).to_users)

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

    @cached_property
    @torch.inference_mode(False)
    def num_items_of_users(self) -> Tensor:
        r"""``[U]``."""
        return self[ITEM_TO_USER].crow_indices().diff()

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
