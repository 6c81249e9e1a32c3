r"""Content filters of planted graphs, and what one of them does to a pair, from the equation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.graph.csr_graph import CSRGraph
from gtc_pyg.models import ContentFilter
from gtc_pyg.models.gtc.filtered_content import Filtered
from tests.models.graphs import recommender, seeded

CONDITIONS = ["item", "neighbors", "user"]


def filter_of(graph: SimpleNamespace, channels: int = 8, **kwargs: Any) -> ContentFilter:
    torch.manual_seed(0)
    return ContentFilter(graph.in_channels, channels, **kwargs)


def items_of(graph: SimpleNamespace, channels: int = 8) -> Tensor:
    return 0.1 * torch.randn(graph.num_items, channels, generator=seeded())


def training_csr(graph: SimpleNamespace, edge_dropout: float = 0.0) -> CSRGraph:
    model = recommender(graph, edge_dropout)
    return model.training_graph(graph.edge_index_dict, generator=seeded())


def run(model: ContentFilter, graph: SimpleNamespace) -> tuple[dict[str, Filtered], CSRGraph]:
    csr = training_csr(graph)
    return model(graph.features, items_of(graph), csr), csr


def weights_of(filtered: dict[str, Filtered]) -> Tensor:
    r"""``[N, M]``."""
    return torch.stack([out.weight for out in filtered.values()], dim=1)


def start(model: ContentFilter, name: str, out: Filtered, u: int, i: int) -> Tensor:
    r"""The content of item i filtered for user u, from the equation."""
    level = model.schedule.alpha_bar[model.times[-2]].to(out.h.dtype)
    lin, gate = model.denoisers[name].lin_out, 1 if out.gate is None else out.gate[u]
    noise = lin.weight @ (gate * out.h[i]) + lin.bias
    return (out.x_t[i] - (1 - level).sqrt() * noise) / level.sqrt()
