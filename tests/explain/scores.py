r"""GTCs whose scores are explained, and what every explanation of a score adds up to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.explain import Explainer, ScoreParts
from gtc_pyg.models import GTC, GraphRecommender

SWITCHES: list[dict[str, Any]] = [
    {},
    {"filter_in": "score"},
    {"filter_in": "both", "item_bias": True, "score_scale": 5.0},
    {"num_item_layers": 0, "item_bias": True},
    {"num_item_layers": 2, "num_layers": 1},
    {"num_layers": 0},
    {"num_layers": 3, "filter_in": "both", "num_sampling_steps": 3, "filter_channels": 12},
    {"condition": "item", "filter_in": "both"},
    {"condition": "neighbors"},
    {"user_ids": False, "filter_in": "score"},
    {"num_sampling_steps": 0, "similarity_gate": False, "filter_in": "both"},
    {"low_pass_strength": 0.4, "low_pass_channels": 5, "num_item_layers": 2},
    {"low_pass_strength": 0.4, "low_pass_channels": 5, "low_pass_debiasing": 0.7},
    {"low_pass_strength": 2.0, "filter_in": "both", "item_bias": True, "num_item_layers": 0},
]


def gtc_of(graph: SimpleNamespace, **kwargs: Any) -> GTC:
    torch.manual_seed(0)
    settings = {"content_strength": 0.5, **kwargs}
    model = GTC(graph.num_users, graph.num_items, graph.in_channels, 8, **settings)
    if model.item_bias is not None:
        torch.nn.init.normal_(model.item_bias.weight)
    model.fit_low_pass(graph.edge_index_dict, graph.edge_weight_dict)
    return model


def explainer_of(model: GraphRecommender, graph: SimpleNamespace) -> Explainer:
    return Explainer(model, graph.features, graph.edge_index_dict, graph.edge_weight_dict)


def embeddings(model: GraphRecommender, graph: SimpleNamespace) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return model(graph.features, graph.edge_index_dict, graph.edge_weight_dict)


def assert_adds_up(parts: ScoreParts, score: Tensor) -> None:
    near = {"rtol": 1e-5, "atol": 1e-5}
    by_source = parts.by_source
    torch.testing.assert_close(parts.score, score, **near)
    torch.testing.assert_close(by_source.sum() + parts.bias, score, **near)
    torch.testing.assert_close(parts.own + parts.past.sum(0), by_source, **near)
    torch.testing.assert_close(parts.itself + parts.similar.sum(0), by_source, **near)
    assert by_source.shape == (len(parts.sources),)
