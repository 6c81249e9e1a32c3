r"""Content filters of planted graphs, and what one of them does to a pair, from the equation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.graph.csr_graph import CSRGraph
from gtc_pyg.models import ContentFilter
from gtc_pyg.models.gtc.filtered_content import FilteredContent
from tests.models.graphs import recommender, seeded

CONDITIONS = ["item", "neighbors", "user"]


def filter_of(graph: SimpleNamespace, channels: int = 8, **kwargs: Any) -> ContentFilter:
    torch.manual_seed(0)
    return ContentFilter(graph.in_channels, channels, **{"user_ids": False, **kwargs})


def items_of(graph: SimpleNamespace, channels: int = 8) -> Tensor:
    return 0.1 * torch.randn(graph.num_items, channels, generator=seeded())


def training_csr(graph: SimpleNamespace, edge_dropout: float = 0.0) -> CSRGraph:
    model = recommender(graph, edge_dropout)
    return model.training_graph(graph.edge_index_dict, generator=seeded())


def run(
    model: ContentFilter, graph: SimpleNamespace
) -> tuple[dict[str, FilteredContent], CSRGraph]:
    csr = training_csr(graph)
    return model(graph.features, items_of(graph), csr), csr


def weights_of(filtered: dict[str, FilteredContent]) -> Tensor:
    r"""``[N, M]``."""
    return torch.stack([out.weight for out in filtered.values()], dim=1)


def x_hat_of(model: ContentFilter, name: str, out: FilteredContent, u: int, i: int) -> Tensor:
    r"""The content of item i filtered for user u, from the equation."""
    sampler, gate = model.sampler, 1 if out.gate is None else out.gate[u]
    level = sampler.schedule.alpha_bar[sampler.times[-2]].to(out.h.dtype)
    weight, bias = model.denoiser(name).noise_map()
    return (out.x_t[i] - (1 - level).sqrt() * (weight @ (gate * out.h[i]) + bias)) / level.sqrt()
