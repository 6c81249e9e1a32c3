from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gtc_pyg.graph import CSRGraph
from gtc_pyg.models.components import Components
from gtc_pyg.models.gtc.content_filter import ContentFilter
from gtc_pyg.models.gtc.filtered_content import FilteredContent, gated
from gtc_pyg.models.gtc.ids import IDs


class FilteredComponents(Components):
    r"""Sources of a GTC: besides what is propagated, content filtered for a user.

    Args:
        content_filter: Filters it.
        filtered: Content of all items, as all users have it.
        graph: The graph of training.
        ids: ID embeddings.
        of_items: What items propagate, of each source ``[I, D]``.
        num_layers: Layers on the interactions.
        num_item_layers: Layers on the item graph.
        scale: Factor on the scores.
    """

    def __init__(
        self,
        content_filter: ContentFilter,
        filtered: Mapping[str, FilteredContent],
        graph: CSRGraph,
        ids: IDs,
        of_items: Sequence[Tensor],
        num_layers: int,
        num_item_layers: int,
        scale: float,
    ) -> None:
        layers, names = (num_layers, num_item_layers), list(filtered)
        super().__init__(graph, ids.unit_user, of_items, *layers, None, scale, names)
        self.content_filter, self.filtered, self._ids = content_filter, filtered, ids

    def of_user(
        self, new: CSRGraph, ego: Tensor
    ) -> tuple[Tensor, Tensor, Mapping[str, FilteredContent]]:
        own, past, _ = super().of_user(new, ego)
        items, num = new.user_items, max(1, new.user_items.numel())
        filtered = self.content_filter.of_new_users(
            self.filtered, new, self._ids.unit_item, ego.view(1, -1)
        )
        for k, f in enumerate(filtered.values(), 1):
            x = gated(f.base[items], f.h[items], f.gate, f.to_content) / num
            length = x.sum(dim=0).norm()
            weight = f.weight * (length > 1e-12) / length.clamp(1e-12)
            past[:, k] += self.scale * self.content_filter.strength * weight * x
        return own, past, filtered
