from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gtc_pyg.models.gtc.newcomers import item_side, user_side
from tests.models.graphs import FILTER_IN, arguments, gtc_of, with_isolated_nodes

SWITCHES = [
    {},
    {"condition": "item"},
    {"condition": "neighbors", "num_sampling_steps": 2},
    {"user_ids": False, "num_layers": 3, "item_bias": True},
    {
        "low_pass_strength": 0.4,
        "low_pass_channels": 3,
        "low_pass_debiasing": 0.7,
        "item_bias": True,
    },
    {"num_sampling_steps": 0, "similarity_gate": False},
    {"incomplete": ["image"], "num_layers": 0},
]


@pytest.mark.parametrize("filter_in", FILTER_IN)
@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_a_new_item_of_a_known_id_is_a_known_item_without_interactions(
    planted: Callable, switches: dict, filter_in: str
) -> None:
    graph = with_isolated_nodes(planted())
    model = gtc_of(graph, filter_in=filter_in, num_item_layers=0, **switches).eval()
    if "incomplete" in switches:
        graph.features["has_image"] = torch.arange(graph.num_items) != 1
    with torch.no_grad():
        expected = model(*arguments(graph))[1][:3]
        csr = model.csr_graph(*arguments(graph)[1:])
        side = item_side(model, graph.features, csr)
        new = {name: x[:3] for name, x in graph.features.items()}
        out = torch.cat(side.own(new, side.item_id[:3]), dim=1)
        beside = 0 if side.beside is None else side.beside.size(1)
        width = side.target.size(1)
        if side.beside is not None:
            item_emb = model(*arguments(graph))[1]
            torch.testing.assert_close(side.beside, item_emb[:, width : width + beside])
            assert side.beside.abs().sum() > 0
        expected = torch.cat([expected[:, :width], expected[:, width + beside :]], dim=1)
    torch.testing.assert_close(out, expected[:, : out.size(1)], atol=1e-6, rtol=1e-5)
    assert expected.size(1) - out.size(1) == (model.item_bias is not None)
    assert (side.bias is None) == (model.item_bias is None)


@pytest.mark.parametrize("filter_in", FILTER_IN)
@pytest.mark.parametrize("switches", SWITCHES[:6], ids=str)
def test_users_who_have_the_items_and_the_start_of_known_ones_are_these(
    planted: Callable, switches: dict, filter_in: str
) -> None:
    graph = with_isolated_nodes(planted())
    model = gtc_of(graph, filter_in=filter_in, **switches).eval()
    with torch.no_grad():
        user_emb, _ = model(*arguments(graph))
        csr = model.csr_graph(*arguments(graph)[1:])
        side = user_side(model, graph.features, csr)
        torch.testing.assert_close(side.embed(csr, side.user), user_emb, atol=1e-5, rtol=1e-5)
        raw = model.user_emb.weight
    torch.testing.assert_close(side.start(3 * raw), side.user)
