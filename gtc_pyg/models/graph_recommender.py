from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import Module
from torch_geometric.nn.models.lightgcn import BPRLoss
from torch_geometric.typing import Adj, EdgeType

from gtc_pyg.functional import (
    degree_sensitive_sample,
    layer_mean,
    spmm,
    stack_interactions,
    to_csr,
)

USER_TO_ITEM: EdgeType = ("user", "rates", "item")
ITEM_TO_USER: EdgeType = ("item", "rev_rates", "user")
SIMILAR_ITEMS: EdgeType = ("item", "similar", "item")

Features = Mapping[str, Tensor]
EdgeIndexDict = Mapping[EdgeType, Adj]
EdgeWeightDict = Mapping[EdgeType, Tensor]


class CSRGraph(dict[EdgeType, Tensor]):
    r"""The edge types that a recommender reads, as transposed CSR.

    What derives from them is made once, when it is first asked for: a graph must not be changed.
    It may be asked for in inference mode and used in training afterwards.
    """

    def layer_mean(self, x: Tensor, num_layers: int) -> Tensor:
        r"""Mean over the layers of LightGCN, users and items stacked, ``[U + I, D]``."""
        return layer_mean(self.symmetric, x, num_layers)

    def mean_of_items(self, x: Tensor) -> Tensor:
        r"""Mean over the items of each user, ``[I, D]`` to ``[U, D]``; 0 without items."""
        return spmm(*self._items_of_users, x)

    def mean_of_users(self, x: Tensor) -> Tensor:
        r"""Mean over the users of each item, ``[U, D]`` to ``[I, D]``; 0 without users."""
        return spmm(*self._users_of_items, x)

    def smooth(self, x: Tensor) -> Tensor:
        r"""Sum over similar items, ``[I, D]`` to ``[I, D]``."""
        return spmm(*self._similar, x)

    @cached_property
    @torch.inference_mode(False)
    def num_items_of_users(self) -> Tensor:
        r"""``[U]``."""
        return self[ITEM_TO_USER].crow_indices().diff()

    def contains(self, user: Tensor, item: Tensor) -> Tensor:
        r"""Whether each pair is an interaction of the graph, ``[N]`` (bool)."""
        pairs = user * self[ITEM_TO_USER].size(1) + item
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
    def _items_of_users(self) -> tuple[Tensor, Tensor]:
        return _row_mean(self[ITEM_TO_USER], self[USER_TO_ITEM])

    @cached_property
    @torch.inference_mode(False)
    def _users_of_items(self) -> tuple[Tensor, Tensor]:
        return _row_mean(self[USER_TO_ITEM], self[ITEM_TO_USER])

    @cached_property
    @torch.inference_mode(False)
    def _similar(self) -> tuple[Tensor, Tensor]:
        similar = self[SIMILAR_ITEMS]
        return similar, similar.t().to_sparse_csr()


def _row_mean(adj: Tensor, adj_t: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix with rows that sum to one, and its transpose."""
    degree = adj.crow_indices().diff()
    inverse = 1 / degree.clamp(min=1).to(adj.dtype)
    value, value_t = inverse.repeat_interleave(degree), inverse[adj_t.col_indices()]
    return _with_values(adj, value), _with_values(adj_t, value_t)


def _with_values(adj: Tensor, value: Tensor) -> Tensor:
    return torch.sparse_csr_tensor(adj.crow_indices(), adj.col_indices(), value, size=adj.shape)


class GraphRecommender(Module):
    r"""What every recommender here has in common.

    :meth:`forward` turns content and graph into one embedding per user and item, ranked by inner
    product; :meth:`loss` gives the named parts that training adds up; :meth:`training_graph` the
    graph of one epoch. None of them remembers anything: no attribute is written.

    Args:
        num_users: Number of users :math:`U`.
        num_items: Number of items :math:`I`.
        edge_dropout: Share of the training interactions that :meth:`training_graph` prunes, popular
            ones first (:func:`gtc_pyg.functional.degree_sensitive_sample`).
    """

    num_item_layers = 0

    def __init__(self, num_users: int, num_items: int, edge_dropout: float = 0.0) -> None:
        super().__init__()
        for name, value in (("num_users", num_users), ("num_items", num_items)):
            if value < 1:
                raise ValueError(f"'{name}' must be at least 1 (got {value})")
        if not 0 <= edge_dropout < 1:
            raise ValueError(f"'edge_dropout' must lie in [0, 1) (got {edge_dropout})")
        self.num_users = num_users
        self.num_items = num_items
        self.edge_dropout = edge_dropout
        self.bpr = BPRLoss()

    def forward(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""Embeds every user and item; the score of a pair is the inner product.

        Args:
            features: Content of each modality, ``[num_items, F_m]``.
            edge_index_dict: ``('user', 'rates', 'item')``, ``('item', 'rev_rates', 'user')`` and,
                where the model uses it, ``('item', 'similar', 'item')``: as ``edge_index``,
                ``EdgeIndex``, transposed CSR or transposed ``SparseTensor``.
            edge_weight_dict: Weights of the edge types given as ``edge_index``, ones where there
                are none: those of :class:`~gtc_pyg.transforms.ItemKNNGraph` belong here.

        Returns:
            User embeddings ``[num_users, K]`` and item embeddings ``[num_items, K]``.
        """
        raise NotImplementedError

    def loss(
        self,
        user: Tensor,
        pos_item: Tensor,
        neg_item: Tensor,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        r"""The parts of the loss by name, weighted: training minimises their sum.

        Args:
            user: ``[B]``.
            pos_item: ``[B]``, an item of each user.
            neg_item: ``[B]``, an item that is none of the user's.
            features: As in :meth:`forward`.
            edge_index_dict: As in :meth:`forward`; see :meth:`training_graph`.
            edge_weight_dict: As in :meth:`forward`.
            generator: Draws all that is random.
        """
        raise NotImplementedError

    def csr_graph(
        self, edge_index_dict: EdgeIndexDict, edge_weight_dict: EdgeWeightDict | None = None
    ) -> CSRGraph:
        r"""The edge types that a recommender reads, as transposed CSR; CSR passes through.

        Raises:
            ValueError: Where either direction of the interactions is missing, has weights or
                repeats an edge, or the two are not the same edges (by their counts).
        """
        if isinstance(edge_index_dict, CSRGraph):
            return edge_index_dict
        sizes = {"user": self.num_users, "item": self.num_items}
        weights = edge_weight_dict or {}
        for key, weight in weights.items():
            if key in (USER_TO_ITEM, ITEM_TO_USER):
                raise ValueError(f"'edge_weight_dict' has {key}: interactions take no weights yet")
            if weight.requires_grad:
                raise ValueError(f"'edge_weight_dict' at {key} must not require a gradient")
        graph = CSRGraph()
        for key in (USER_TO_ITEM, ITEM_TO_USER, SIMILAR_ITEMS):
            if key in edge_index_dict:
                adj = edge_index_dict[key]
                try:
                    graph[key] = to_csr(adj, sizes[key[2]], sizes[key[0]], weights.get(key))
                except ValueError as error:
                    raise ValueError(f"'edge_index_dict' at {key}: {error}") from error
            elif key != SIMILAR_ITEMS:
                raise ValueError(
                    f"'edge_index_dict' lacks {key} (it has {list(edge_index_dict)}); "
                    f"torch_geometric.transforms.ToUndirected adds the reverse edges"
                )
            elif self.num_item_layers > 0:
                raise ValueError(
                    f"'edge_index_dict' lacks {key}; gtc_pyg.transforms.ItemKNNGraph adds it, and "
                    f"num_item_layers=0 does without"
                )
        _check_interactions(graph)
        return graph

    def training_graph(
        self,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
        generator: torch.Generator | None = None,
    ) -> CSRGraph:
        r"""The graph of one epoch: CSR once, so that steps need not sort, and pruned."""
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        if self.edge_dropout > 0:
            to_user = graph[ITEM_TO_USER]
            user = torch.arange(self.num_users, device=to_user.device)
            user = user.repeat_interleave(graph.num_items_of_users)
            edge_index = torch.stack([user, to_user.col_indices()])
            num_kept = max(1, round((1 - self.edge_dropout) * user.numel()))
            kept = degree_sensitive_sample(
                edge_index, self.num_users, self.num_items, num_kept, generator
            )
            edge_index = edge_index[:, kept]
            graph = CSRGraph(graph)  # derives anew
            graph[USER_TO_ITEM] = to_csr(edge_index, self.num_items, self.num_users)
            graph[ITEM_TO_USER] = to_csr(edge_index.flip(0), self.num_users, self.num_items)
        return graph

    def _content(self, features: Features, name: str) -> Tensor:
        """The content of a modality, one row per item, or an error that says what is wrong."""
        if name not in features:
            raise ValueError(f"'features' lacks {name!r} (it has {list(features)})")
        if features[name].size(0) != self.num_items:
            raise ValueError(
                f"'features' has {features[name].size(0)} rows of {name!r}, "
                f"expected one for each of the {self.num_items} items"
            )
        mask = features.get(f"has_{name}")
        if mask is not None and (mask.shape != (self.num_items,) or mask.dtype != torch.bool):
            raise ValueError(
                f"'features' must have 'has_{name}' as bool [{self.num_items}] "
                f"(got {mask.dtype} {list(mask.shape)})"
            )
        return features[name]

    def _rank_loss(
        self, user_emb: Tensor, item_emb: Tensor, user: Tensor, pos: Tensor, neg: Tensor
    ) -> Tensor:
        u = user_emb.index_select(0, user)
        pos_score = (u * item_emb.index_select(0, pos)).sum(-1)
        neg_score = (u * item_emb.index_select(0, neg)).sum(-1)
        return self.bpr(pos_score, neg_score)


def _check_interactions(graph: CSRGraph) -> None:
    """Unweighted, none twice, and the same in both directions."""
    for key, reverse in ((USER_TO_ITEM, ITEM_TO_USER), (ITEM_TO_USER, USER_TO_ITEM)):
        adj, col = graph[key], graph[key].col_indices()
        first = torch.zeros(col.numel() + 1, dtype=torch.bool, device=col.device)
        first[adj.crow_indices()] = True  # of its row
        twice = (col[1:] == col[:-1]) & ~first[1:-1]
        if bool((adj.values() != 1).any()) or bool(twice.any()):
            raise ValueError(
                f"'edge_index_dict' at {key} must hold every interaction once, without weights "
                f"(torch_geometric.utils.coalesce removes copies)"
            )
        degree = torch.bincount(col, minlength=adj.size(1))
        if not torch.equal(degree, graph[reverse].crow_indices().diff()):
            raise ValueError(
                f"'edge_index_dict' at {key} and {reverse} must be the same interactions (got "
                f"{col.numel()} and {graph[reverse].col_indices().numel()}, or of other nodes)"
            )
