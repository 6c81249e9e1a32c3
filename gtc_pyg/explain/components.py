from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gtc_pyg.functional import normalize_rows, select_rows
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, CSRGraph
from gtc_pyg.inductive.user_embedder import item_degree
from gtc_pyg.models import FREEDOM, GTC, LightGCN
from gtc_pyg.models.graph_recommender import Features, GraphRecommender
from gtc_pyg.models.gtc.filtered_content import Filtered
from gtc_pyg.models.heads.spectral_head import LowPass

INTERACTIONS = "interactions"


class Components(NamedTuple):
    r"""What each source of a model gives to its items, and its items to users.

    A source is ``'interactions'`` (ID embeddings) or a modality: :math:`S` of them. What is
    propagated is their sum, and propagation is linear, so each is propagated alone.
    """

    sources: tuple[str, ...]
    """Their names."""
    told: Tensor
    r""":math:`\frac{1}{L + 1} |N(i)|^{-1/2} \sum_{l < L} h_i^{(l)}`, what an item tells each of its
    users, but for their own :math:`|N(u)|^{-1/2}`, ``[I, S, D]``."""
    itself: Tensor
    """The item's own embedding ``[I, S, D]``."""
    spread: Tensor
    """What an item gives to those that it is similar to ``[I, S, D]``."""
    low_pass: LowPass | None
    """What gives columns beside, part of ``'interactions'``."""
    low_pass_item: Tensor | None
    """Those of the items, before similar ones are added ``[I, K]``."""
    unit: bool
    """Whether ID embeddings of users count by their directions alone."""
    start: float
    """How much of a user's own ID embedding is left, :math:`1 / (L + 1)`."""
    scale: float
    """Factor on the scores."""
    filtered: Mapping[str, Filtered]
    """Content as all users have it filtered; empty where the model filters none."""
    similar: Tensor | None
    """The item graph, CSR ``[I, I]``, where the model has one."""
    num_item_layers: int
    """How often items are smoothed over it."""
    bias: Tensor | None
    """Of the items ``[I]``."""

    def neighbors(self, item: int) -> tuple[Tensor, Tensor]:
        r"""Items whose ``spread`` reaches an item, and their weights, ``[R]`` each.

        The item may be one of them.
        """
        rows = torch.tensor([item], device=self.told.device)
        weight = self.told.new_ones(1)
        if self.similar is None:
            return rows[:0], weight[:0]
        for _ in range(self.num_item_layers):
            edges = select_rows(self.similar, rows)
            weight = weight.repeat_interleave(edges.crow_indices().diff()) * edges.values()
            rows, position = edges.col_indices().unique(return_inverse=True)
            weight = weight.new_zeros(rows.numel()).index_add_(0, position, weight)
        return rows, weight


@torch.no_grad()
def item_components(model: GraphRecommender, features: Features, graph: CSRGraph) -> Components:
    r"""The components of a model's items.

    Args:
        model: A :class:`~gtc_pyg.models.GTC`, :class:`~gtc_pyg.models.FREEDOM` or
            :class:`~gtc_pyg.models.LightGCN`.
        features: Content of each modality, as in :meth:`~gtc_pyg.models.GTC.forward`.
        graph: The interactions, whole.

    Raises:
        TypeError: For another model.
    """
    if not isinstance(model, GTC | FREEDOM | LightGCN):
        raise TypeError(
            f"'model' must be a GTC, FREEDOM or LightGCN, whose scores are sums of what their "
            f"items give (got {type(model).__name__})"
        )
    filtered: dict[str, Filtered] = {}
    user, item = model.user_emb.weight, model.item_emb.weight
    of_items = [item]
    if isinstance(model, GTC):
        filtered = model.filter_content(features, graph)
        user, item = normalize_rows(user), normalize_rows(item)
        content = [normalize_rows(f.x_hat) for f in filtered.values()]
        weight = model.gate(item, content)[1].t().unsqueeze(-1)
        of_content = [w * x for w, x in zip(weight[1:], content, strict=True)]
        of_items = [item + weight[0] * item, *of_content]
    num_layers, num_users = model.num_layers, graph.num_users
    told, itself = [], []
    for k, x in enumerate(of_items):
        x = torch.cat([user if k == 0 else torch.zeros_like(user), x])
        told.append(torch.zeros_like(item))
        if num_layers > 0:
            told[-1] = num_layers * graph.layer_mean(x, num_layers - 1)[num_users:]
        itself.append(graph.layer_mean(x, num_layers)[num_users:])
    inverse = item_degree(graph, item.dtype).rsqrt().unsqueeze(-1) / (num_layers + 1)
    both = torch.stack(itself, dim=1)
    spread = item.unsqueeze(1) if isinstance(model, FREEDOM) else both
    if isinstance(model, FREEDOM) and model.num_item_layers == 0:
        both = both + spread
    bias, low_pass = model.item_bias, model.low_pass
    return Components(
        sources=(INTERACTIONS, *filtered),
        told=torch.stack(told, dim=1) * inverse,
        itself=both,
        spread=spread,
        unit=isinstance(model, GTC),
        start=1 / (num_layers + 1),
        scale=model.score_scale if isinstance(model, GTC) else 1.0,
        filtered=filtered,
        similar=graph[SIMILAR_ITEMS] if model.num_item_layers > 0 else None,
        num_item_layers=model.num_item_layers,
        bias=None if bias is None else bias.weight.view(-1),
        low_pass=low_pass,
        low_pass_item=None if low_pass is None else low_pass.own_columns(graph),
    )
