r"""GTCs whose scores are explained, and what every explanation of a score adds up to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.explain import Explainer, ScoreParts
from gtc_pyg.models import GTC, GraphRecommender, Head, ItemBias, SpectralHead
from gtc_pyg.nn import BPR, UniformGate
from tests.models.graphs import gtc_of as plain_gtc_of

SETTINGS: list[dict[str, Any]] = [
    {},
    {"num_item_layers": 0, "heads": True, "scale": 5.0},
    {"num_item_layers": 2, "num_layers": 1},
    {"num_layers": 0},
    {"num_layers": 3, "num_sampling_steps": 3, "hidden_channels": 12},
    {"condition": "item"},
    {"condition": "neighbors", "scale": 0.5},
    {"user_ids": False},
    {"num_sampling_steps": 0, "fusion": UniformGate()},
    {"heads": True, "num_item_layers": 2},
]
"""Of a GTC; ``heads`` for both heads, ``scale`` for that of the ranking loss."""


def heads_of(strength: float = 0.4) -> list[Head]:
    return [SpectralHead(5, strength, debiasing=0.7), ItemBias()]


def gtc_of(graph: SimpleNamespace, **settings: Any) -> GTC:
    r"""A GTC that listens to content; settings as in :data:`SETTINGS`."""
    settings = {"strength": 0.5, "ranking": BPR(scale=settings.pop("scale", 1.0)), **settings}
    settings["heads"] = heads_of() if settings.get("heads") else []
    return plain_gtc_of(graph, **settings)


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
