from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gtc_pyg.explain import Components, item_components
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import FREEDOM, MGCN, GraphRecommender, LightGCN
from tests.explain.scores import SWITCHES, embeddings, gtc_of
from tests.models.graphs import csr_of


def components_of(graph: Any, model: GraphRecommender) -> Components:
    return item_components(model, graph.features, csr_of(graph))


def baselines(graph: Any) -> list[GraphRecommender]:
    torch.manual_seed(0)
    sizes = graph.num_users, graph.num_items
    layers = [{"num_item_layers": n} for n in (0, 1, 2)]
    freedoms = [FREEDOM(*sizes, graph.in_channels, 8, **more) for more in layers]
    return [LightGCN(*sizes, 8), LightGCN(*sizes, 8, num_layers=0), *freedoms]


def assert_items_add_up(c: Components, model: GraphRecommender, graph: Any) -> None:
    r"""An item is all that is its own and all that its neighbours spread."""
    item_emb = embeddings(model, graph)[1]
    for item in (0, 13, 39):
        rows, weight = c.neighbors(item)
        near = (c.spread[rows] * weight.view(-1, 1, 1)).sum(dim=0)
        total = (c.itself[item] + near).sum(dim=0)
        torch.testing.assert_close(total, item_emb[item, : total.numel()], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("switches", SWITCHES, ids=str)
def test_sources_of_an_item_add_up_to_its_embedding(planted: Callable, switches: dict) -> None:
    graph = planted()
    model = gtc_of(graph, **switches)
    c = components_of(graph, model)
    assert c.sources == ("interactions", "image", "text")
    assert list(c.filtered) == ["image", "text"]
    assert_items_add_up(c, model, graph)


def test_the_baselines_have_one_source(planted: Callable) -> None:
    graph = planted()
    for model in baselines(graph):
        c = components_of(graph, model)
        assert c.sources == ("interactions",) and not c.filtered
        assert (c.unit, c.scale, c.bias) == (False, 1.0, None)
        assert_items_add_up(c, model, graph)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_what_items_tell_users_and_the_start_make_the_user(
    planted: Callable, num_layers: int
) -> None:
    graph = planted()
    for model in (gtc_of(graph, num_layers=num_layers, content_strength=0.0), LightGCN(60, 40, 8)):
        c = components_of(graph, model)
        user, item = graph.edge_index_dict[USER_TO_ITEM]
        emb = model.user_emb.weight.detach()
        emb = torch.nn.functional.normalize(emb) if c.unit else emb
        user_emb = embeddings(model, graph)[0]
        for u in (0, 30, 59):
            told = c.told[item[user == u]].sum(dim=(0, 1)) / (user == u).sum() ** 0.5
            torch.testing.assert_close(c.start * emb[u] + told, user_emb[u], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_item_layers", [1, 2])
def test_neighbours_are_a_row_of_the_power_of_the_item_graph(
    planted: Callable, num_item_layers: int
) -> None:
    graph = planted()
    c = components_of(graph, gtc_of(graph, num_item_layers=num_item_layers))
    similar = torch.zeros(40, 40)
    source, target = graph.edge_index_dict[SIMILAR_ITEMS]
    similar[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS]
    power = torch.matrix_power(similar, num_item_layers)
    for item in (0, 21, 39):
        rows, weight = c.neighbors(item)
        assert rows.unique().numel() == rows.numel()
        torch.testing.assert_close(torch.zeros(40).index_add(0, rows, weight), power[item])


def test_without_an_item_graph_there_are_no_neighbours(planted: Callable) -> None:
    graph = planted()
    c = components_of(graph, gtc_of(graph, num_item_layers=0))
    assert c.similar is None
    assert [x.numel() for x in c.neighbors(3)] == [0, 0]


def test_a_model_whose_scores_are_no_such_sums_is_refused(planted: Callable) -> None:
    graph = planted()
    with pytest.raises(TypeError, match=r"'model' must be a GTC, FREEDOM or LightGCN.*got MGCN"):
        components_of(graph, MGCN(60, 40, graph.in_channels, 8))
