r"""What a GTC's content learns from, beside the ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gtc_pyg.graph.content import Features
from gtc_pyg.graph.csr_graph import CSRGraph
from gtc_pyg.models.gtc.filtered_content import Filtered

if TYPE_CHECKING:
    from gtc_pyg.models.gtc import GTC


def content_losses(
    model: GTC,
    filtered: Mapping[str, Filtered],
    content: Mapping[str, Tensor],
    features: Features,
    graph: CSRGraph,
    item_id: Tensor,
    triple: tuple[Tensor, Tensor, Tensor],
    generator: torch.Generator | None,
) -> dict[str, Tensor]:
    r"""Diffusion, the filter's own ranking, and the alignment of content and IDs, by name.

    Args:
        model: Has the weights of the parts; what weighs 0 is left out.
        filtered: All content, filtered for the batch's users.
        content: What these users' items tell them.
        features: What it was made of.
        graph: The interactions.
        item_id: ID embeddings of the items ``[I, D]``.
        triple: Positions of users among the batch's, items of theirs and others, each ``[B]``.
        generator: Draws all that is random.
    """
    rows, pos_item, _ = triple
    parts = {}
    if model.diffusion_weight > 0:
        loss = model.filter.diffusion_loss(filtered, features, rows, pos_item, generator)
        parts["diffusion"] = model.diffusion_weight * loss
    if model.filter_weight > 0:
        loss = model.filter.ranking_loss(filtered, content, features, graph, *triple)
        parts["filter"] = model.filter_weight * loss
    if model.total_correlation_weight > 0:
        items = pos_item.unique()
        # Content is drawn to what interactions say of an item, and not the other way round.
        views = [f.x_hat.index_select(0, items) for f in filtered.values()]
        views = [item_id.detach().index_select(0, items), *views]
        has = [features.get(f"has_{name}") for name in filtered]
        masks = [None, *(mask if mask is None else mask[items] for mask in has)]
        loss = _alignment(model, views, masks, generator)
        parts["total_correlation"] = model.total_correlation_weight * loss
    return parts


def _alignment(
    model: GTC,
    views: Sequence[Tensor],
    masks: Sequence[Tensor | None],
    generator: torch.Generator | None,
) -> Tensor:
    """Of all views at once, or the mean over pairs of them."""
    if model.alignment == "total_correlation":
        return model.total_correlation(views, masks, generator)
    pairs = combinations(zip(views, masks, strict=True), 2)
    losses = [model.total_correlation(*zip(*pair, strict=True), generator) for pair in pairs]
    return torch.stack(losses).mean()
