from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Embedding

from gtc_pyg.models.graph_recommender import (
    CSRGraph,
    EdgeIndexDict,
    EdgeWeightDict,
    Features,
    GraphRecommender,
)
from gtc_pyg.models.user_embedder import UserSide, propagated_side


class LightGCN(GraphRecommender):
    r"""LightGCN: neighbours' embeddings averaged over the layers, and nothing else.

    From `"LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_. Sees interactions and no content. Embeddings, scores and
    gradients are those of PyG's :class:`~torch_geometric.nn.models.LightGCN` with the same weights.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        hidden_channels: Width of the embeddings.
        num_layers: Number of propagation layers.
        regularization: Weight of the squared length of the batch's embeddings.
        edge_dropout: As in :class:`~gtc_pyg.models.GraphRecommender`.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: int = 64,
        num_layers: int = 2,
        regularization: float = 1e-4,
        edge_dropout: float = 0.0,
    ) -> None:
        super().__init__(num_users, num_items, edge_dropout)
        self.num_layers = num_layers
        self.regularization = regularization
        self.user_emb = Embedding(num_users, hidden_channels)
        self.item_emb = Embedding(num_items, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        fan = self.num_users + self.num_items + self.user_emb.embedding_dim
        for embedding in (self.user_emb, self.item_emb):  # Glorot's, as of one table
            torch.nn.init.uniform_(embedding.weight, -((6 / fan) ** 0.5), (6 / fan) ** 0.5)

    def forward(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> tuple[Tensor, Tensor]:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        ego = torch.cat([graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")])
        out = graph.layer_mean(ego, self.num_layers)
        user_emb, item_emb = out.split([graph.num_users, graph.num_items])
        return user_emb, item_emb

    def _user_side(self, features: Features, graph: CSRGraph) -> UserSide:
        return propagated_side(graph, self.user_emb, self.item_emb, self.num_layers)

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
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        user, pos_item, neg_item = graph.check_triple(user, pos_item, neg_item)
        user_emb, item_emb = self(features, graph)
        e_user, e_item = graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")
        ego = torch.cat([e_user[user], e_item[pos_item], e_item[neg_item]])
        return {
            "ranking": self._rank_loss(user_emb, item_emb, user, pos_item, neg_item),
            "regularization": self.regularization * 0.5 * ego.pow(2).sum() / user.numel(),
        }
