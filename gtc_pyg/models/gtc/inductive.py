r"""How a trained GTC makes embeddings of users and items that came after training."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import normalize_rows
from gtc_pyg.graph import CSRGraph, Features
from gtc_pyg.inductive.item_embedder import ItemAdapter, without_interactions
from gtc_pyg.inductive.user_embedder import PropagatedUsers
from gtc_pyg.models.gtc.content_filter import ContentFilter
from gtc_pyg.models.gtc.filtered_content import FilteredContent
from gtc_pyg.models.gtc.ids import IDs


class FilteredUsers(PropagatedUsers):
    r"""New users: the content of the items, which do not know them, is filtered as to all.

    Args:
        content_filter: Filters it.
        filtered: Content of all items, as the trained users have it.
        graph: The graph of training.
        ids: ID embeddings.
        item: What the items propagate ``[I, D]``.
        num_layers: Layers on the interactions.
        scale: Factor on the scores.
    """

    def __init__(
        self,
        content_filter: ContentFilter,
        filtered: Mapping[str, FilteredContent],
        graph: CSRGraph,
        ids: IDs,
        item: Tensor,
        num_layers: int,
        scale: float,
    ) -> None:
        super().__init__(graph, ids.unit_user, item, num_layers, scale)
        self.item = ids.unit_item
        self.content_filter, self.filtered = content_filter, filtered

    def embed(self, new: CSRGraph, ego: Tensor) -> Tensor:
        filtered = self.content_filter.of_new_users(self.filtered, new, self.item, ego)
        content = self.content_filter.mean_content(filtered, new)
        users = self.propagate(new, ego)
        return self.scale * self.content_filter.add_content_messages(users, filtered, content)


class FusedItems(ItemAdapter):
    r"""New items: filtered and fused as all are, under a predicted ID embedding, without users.

    Args:
        content_filter: Filters their content.
        fusion: Fuses it with the ID embedding.
        target: As in :class:`~gtc_pyg.inductive.item_embedder.ItemAdapter`.
        item_id: ID embeddings of the known items at unit length ``[I, D]``.
        share: The share of what an item propagates in its own embedding.
    """

    def __init__(
        self,
        content_filter: ContentFilter,
        fusion: Module,
        target: Tensor,
        item_id: Tensor,
        share: float,
    ) -> None:
        super().__init__(target, item_id)
        self.content_filter, self.fusion, self.share = content_filter, fusion, share

    def own(self, features: Features, item_id: Tensor) -> Tensor:
        nobody = item_id.new_zeros(1, item_id.size(1))
        known = [f"has_{name}" for name in self.content_filter.incomplete]  # else the mean is all
        features = {
            key: x for key, x in features.items() if key in known or not key.startswith("has_")
        }
        graph = without_interactions(item_id)
        filtered = self.content_filter(features, item_id, graph, user_emb=nobody)
        content = [normalize_rows(f.x_hat) for f in filtered.values()]
        return self.share * self.fusion(item_id, content)[0]
