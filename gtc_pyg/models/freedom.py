from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, ModuleDict

from gtc_pyg.functional import check_least, takes_numbers
from gtc_pyg.graph import CSRGraph, EdgeIndexDict, EdgeWeightDict, Features
from gtc_pyg.graph.content import check_widths, content_of
from gtc_pyg.inductive.user_embedder import PropagatedUsers
from gtc_pyg.models.components import Components
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.heads import Head
from gtc_pyg.nn import RankingLoss


class FREEDOM(GraphRecommender):
    r"""FREEDOM: a frozen item graph from content beside pruned interactions.

    From `"A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
    Recommendation" <https://arxiv.org/abs/2211.06924>`_:

    .. math::
        [z_u, z_i] = \frac{1}{L + 1} \sum_l \hat A^l [e_u, e_i], \qquad
        y_{ui} = \langle z_u, \; z_i + (S^{L'} e)_i \rangle

    Training prunes a share of the interactions every epoch, edges between popular nodes first, and
    adds a BPR loss for each modality's projected content, :math:`\langle z_u, W_m f_i^m \rangle`
    (without a bias, which the difference of two scores would cancel).

    Args:
        num_users: Number of users.
        num_items: Number of items.
        in_channels: Width of each modality's content.
        hidden_channels: Width of the embeddings.
        num_layers: Layers :math:`L` on the interactions.
        num_item_layers: Layers :math:`L'` on the item graph.
        modality_weight: Weight of the modalities' BPR losses.
        edge_dropout: Share of the interactions pruned each epoch.
        ranking: As in :class:`~gtc_pyg.models.GraphRecommender`.
        heads: As in :class:`~gtc_pyg.models.GraphRecommender`.
    """

    loss_is_mean = True

    @takes_numbers
    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int],
        hidden_channels: int = 64,
        num_layers: int = 2,
        num_item_layers: int = 1,
        modality_weight: float = 1e-3,
        edge_dropout: float = 0.8,
        ranking: RankingLoss | None = None,
        heads: Sequence[Head] = (),
    ) -> None:
        check_least(0, num_layers=num_layers, num_item_layers=num_item_layers)
        super().__init__(num_users, num_items, hidden_channels, ranking, heads, edge_dropout)
        check_widths(in_channels, least=0)
        self.num_layers = num_layers
        self.num_item_layers = num_item_layers
        self.modality_weight = modality_weight
        self.projections = ModuleDict(
            {
                name: Linear(width, hidden_channels, bias=False)
                for name, width in in_channels.items()
            }
        )
        self.reset_parameters()

    @property
    def in_channels(self) -> dict[str, int]:
        r"""Width of each modality's content."""
        return {name: cast(Linear, lin).in_features for name, lin in self.projections.items()}

    def reset_parameters(self) -> None:
        super().reset_parameters()
        torch.nn.init.xavier_uniform_(self.user_emb.weight)
        torch.nn.init.xavier_uniform_(self.item_emb.weight)
        for projection in self.projections.values():
            cast(Linear, projection).reset_parameters()

    def embed(self, features: Features, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        e_user, e_item = graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")
        out = graph.layer_mean(torch.cat([e_user, e_item]), self.num_layers)
        user_emb, item_emb = out.split([graph.num_users, graph.num_items])
        h = e_item
        for _ in range(self.num_item_layers):
            h = graph.smooth(h)
        return user_emb, item_emb + h

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
        parts = {"ranking": self.rank_loss(user_emb, item_emb, user, pos_item, neg_item, graph)}
        u = user_emb.index_select(0, user)
        content = user_emb.new_zeros(())
        for name, projection in self.projections.items():
            x = content_of(features, name, graph.num_items, u.dtype)
            # The difference is projected, and not both: half of the products.
            gap = x.index_select(0, pos_item) - x.index_select(0, neg_item)
            score = (u * projection(gap)).sum(dim=-1)
            content = content - F.logsigmoid(score).mean()
        parts["modalities"] = self.modality_weight * content
        return parts

    def user_adapter(self, features: Features, graph: CSRGraph) -> PropagatedUsers:
        user, item = self.user_emb.weight, self.item_emb.weight
        return PropagatedUsers(graph, user, item, self.num_layers, self.ranking.scale)

    def components(self, features: Features, graph: CSRGraph) -> Components:
        user, item = self.user_emb.weight, self.item_emb.weight
        layers = self.num_layers, self.num_item_layers
        return Components(graph, user, [item], *layers, item.unsqueeze(1), self.ranking.scale)
