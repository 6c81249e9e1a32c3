from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Embedding

from gtc_pyg.models.graph_recommender import (
    EdgeIndexDict,
    EdgeWeightDict,
    Features,
    GraphRecommender,
)


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
        self.embedding = Embedding(num_users + num_items, hidden_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Draws all weights anew."""
        torch.nn.init.xavier_uniform_(self.embedding.weight)

    def forward(
        self,
        features: Features,
        edge_index_dict: EdgeIndexDict,
        edge_weight_dict: EdgeWeightDict | None = None,
    ) -> tuple[Tensor, Tensor]:
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        out = graph.layer_mean(self.embedding.weight, self.num_layers)
        user_emb, item_emb = out.split([self.num_users, self.num_items])
        return user_emb, item_emb

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
        user_emb, item_emb = self(features, edge_index_dict, edge_weight_dict)
        nodes = torch.cat([user, pos_item + self.num_users, neg_item + self.num_users])
        ego = self.embedding.weight.index_select(0, nodes)
        return {
            "ranking": self._rank_loss(user_emb, item_emb, user, pos_item, neg_item),
            "regularization": self.regularization * 0.5 * ego.pow(2).sum() / user.numel(),
        }
