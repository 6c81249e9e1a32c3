from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gtc_pyg.models import ItemBias, SpectralHead
from gtc_pyg.nn import BPR, UniformGate
from tests.models.graphs import arguments, gtc_of, with_isolated_nodes

SETTINGS: list[dict[str, Any]] = [
    {},
    {"condition": "item"},
    {"condition": "neighbors", "num_sampling_steps": 2},
    {"user_ids": False, "num_layers": 3},
    {"num_sampling_steps": 0, "fusion": UniformGate(), "ranking": BPR(scale=3.0)},
    {"incomplete": ["image"], "num_layers": 0},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_new_item_of_a_known_id_is_that_item_untouched(planted: Callable, settings: dict) -> None:
    graph = with_isolated_nodes(planted())
    model = gtc_of(graph, num_item_layers=0, **settings).eval()
    if "incomplete" in settings:
        graph.features["has_image"] = torch.arange(graph.num_items) != 1
    with torch.no_grad():
        expected = model(*arguments(graph))[1][:3]
        adapter = model.item_adapter(graph.features, model.csr_graph(*arguments(graph)[1:]))
        new = {name: x[:3] for name, x in graph.features.items()}
        out = adapter.own(new, adapter.item_id[:3])
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
def test_the_target_is_the_item_before_similar_ones(planted: Callable, settings: dict) -> None:
    graph = planted()
    model = gtc_of(graph, num_item_layers=0, **settings).eval()
    csr = model.csr_graph(*arguments(graph)[1:])
    with torch.no_grad():
        expected = model(*arguments(graph))[1]
        torch.testing.assert_close(model.item_adapter(graph.features, csr).target, expected)


@pytest.mark.parametrize("settings", SETTINGS[:5], ids=str)
def test_users_of_known_items_and_ids_are_the_known_ones(planted: Callable, settings: dict) -> None:
    graph = with_isolated_nodes(planted())
    model = gtc_of(graph, heads=[SpectralHead(3), ItemBias()], **settings).eval()
    with torch.no_grad():
        user_emb = model(*arguments(graph))[0][:, :8]
        csr = model.csr_graph(*arguments(graph)[1:])
        adapter = model.user_adapter(graph.features, csr)
        torch.testing.assert_close(adapter.embed(csr, adapter.user), user_emb, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.transform_user(3 * model.user_emb.weight), adapter.user)
