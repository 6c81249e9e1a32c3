from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gtc_pyg.functional import check_least, takes_numbers
from gtc_pyg.graph import CSRGraph, Features
from gtc_pyg.graph.content import check_widths
from gtc_pyg.inductive.user_embedder import PropagatedUsers
from gtc_pyg.models.components import Components
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.heads import SpectralHead


class SpectralFilter(GraphRecommender):
    r"""A recommender without training: a low-pass filter of the interactions, fitted in seconds.

    A :class:`~gtc_pyg.models.SpectralHead` and nothing else. Similar items count where
    ``num_item_layers`` is above 0, which needs an item graph. Compare `"How Powerful is Graph
    Convolution for Recommendation?" <https://arxiv.org/abs/2108.07567>`_.

    Args:
        num_users: Number of users.
        num_items: Number of items.
        in_channels: Width of each modality's content. It is read only to embed items that nobody
            has touched; may be empty.
        channels: As in :class:`~gtc_pyg.models.SpectralHead`.
        debiasing: As in :class:`~gtc_pyg.models.SpectralHead`.
        regularization: As in :class:`~gtc_pyg.models.SpectralHead`.
        num_item_layers: Layers on the item graph; with 0 none is needed.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> model = SpectralFilter(30, 20, channels=8)
        >>> model.prepare(data.edge_index_dict)
        >>> user_emb, item_emb = model({}, data.edge_index_dict)
        >>> item_emb.shape
        torch.Size([20, 8])
    """

    trainable = False

    @takes_numbers
    def __init__(
        self,
        num_users: int,
        num_items: int,
        in_channels: Mapping[str, int] | None = None,
        channels: int = 128,
        debiasing: float = 0.0,
        regularization: float = 1.0,
        num_item_layers: int = 0,
    ) -> None:
        check_least(0, num_item_layers=num_item_layers)
        check_widths({} if in_channels is None else in_channels, least=0)
        head = SpectralHead(channels, 1.0, debiasing, regularization)
        super().__init__(num_users, num_items, hidden_channels=0, heads=[head])
        self.num_item_layers = num_item_layers
        self._in_channels = dict(in_channels or {})
        self.channels = channels
        self.debiasing = debiasing
        self.regularization = regularization

    @property
    def in_channels(self) -> dict[str, int]:
        return self._in_channels

    def embed(self, features: Features, graph: CSRGraph) -> tuple[Tensor, Tensor]:
        return graph.rows(self.user_emb, "user"), graph.rows(self.item_emb, "item")

    def user_adapter(self, features: Features, graph: CSRGraph) -> PropagatedUsers:
        return PropagatedUsers(graph, self.user_emb.weight, self.item_emb.weight, 0)

    def components(self, features: Features, graph: CSRGraph) -> Components:
        return Components(graph, self.user_emb.weight, [self.item_emb.weight], num_layers=0)
