from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gtc_pyg.functional import check_least, takes_numbers
from gtc_pyg.graph import CSRGraph, EdgeIndexDict, EdgeWeightDict, Features
from gtc_pyg.inductive.user_embedder import PropagatedUsers
from gtc_pyg.models.components import Components
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.heads import Head
from gtc_pyg.nn import RankingLoss


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
        ranking: As in :class:`~gtc_pyg.models.GraphRecommender`.
        heads: As in :class:`~gtc_pyg.models.GraphRecommender`.
        edge_dropout: As in :class:`~gtc_pyg.models.GraphRecommender`.
    """

    loss_is_mean = True

    @takes_numbers
    def __init__(
        self,
        num_users: int,
        num_items: int,
        hidden_channels: int = 64,
        num_layers: int = 2,
        regularization: float = 1e-4,
        ranking: RankingLoss | None = None,
        heads: Sequence[Head] = (),
        edge_dropout: float = 0.0,
    ) -> None:
        check_least(0, num_layers=num_layers)
        super().__init__(num_users, num_items, hidden_channels, ranking, heads, edge_dropout)
        self.num_layers = num_layers
        self.regularization = regularization
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        fan = self.num_users + self.num_items + self.hidden_channels
        for embedding in (self.user_emb, self.item_emb):  # Glorot's, as of one table
            torch.nn.init.uniform_(embedding.weight, -((6 / fan) ** 0.5), (6 / fan) ** 0.5)

    def embed(self, features: Features, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        ego = torch.cat([graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")])
        out = graph.layer_mean(ego, self.num_layers)
        user_emb, item_emb = out.split([graph.num_users, graph.num_items])
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
        graph = self.csr_graph(edge_index_dict, edge_weight_dict)
        user, pos_item, neg_item = graph.check_triple(user, pos_item, neg_item)
        user_emb, item_emb = self.embed(features, graph)
        e_user, e_item = graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")
        ego = torch.cat([e_user[user], e_item[pos_item], e_item[neg_item]])
        return {
            "ranking": self.rank_loss(user_emb, item_emb, user, pos_item, neg_item, graph),
            "regularization": self.regularization * 0.5 * ego.pow(2).sum() / user.numel(),
        }

    def user_adapter(self, features: Features, graph: CSRGraph) -> PropagatedUsers:
        user, item = self.user_emb.weight, self.item_emb.weight
        return PropagatedUsers(graph, user, item, self.num_layers, self.ranking.scale)

    def components(self, features: Features, graph: CSRGraph) -> Components:
        user, item = self.user_emb.weight, self.item_emb.weight
        return Components(graph, user, [item], self.num_layers, scale=self.ranking.scale)
