from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gtc_pyg.explain import Explainer
from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.models import FREEDOM, GraphRecommender, LightGCN
from tests.explain.scores import SETTINGS, assert_adds_up, embeddings, explainer_of, gtc_of


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_user_given_by_their_items_is_that_user(planted: Callable, settings: dict) -> None:
    graph = planted()
    model = gtc_of(graph, **settings)
    explainer = explainer_of(model, graph)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    items = item[user == 8].flip(0)
    known = explainer.user(8).score_parts(11)
    given = explainer.user(items, model.user_emb.weight[8]).score_parts(11)
    torch.testing.assert_close(given.by_source, known.by_source)
    torch.testing.assert_close(given.past, known.past)


@pytest.mark.parametrize("kind", ["gtc", "lightgcn"])
def test_a_new_user_has_the_score_that_folding_in_gives(planted: Callable, kind: str) -> None:
    graph = planted()
    model: GraphRecommender = gtc_of(graph, heads=True)
    if kind == "lightgcn":
        model = LightGCN(60, 40, 8)
    given = graph.features, graph.edge_index_dict, graph.edge_weight_dict
    items = torch.tensor([3, 30, 12, 3])
    edges = torch.stack([torch.zeros_like(items), items])
    emb = model.user_embedder(*given)(edges, 1)[0]
    parts = Explainer(model, *given).user(items).score_parts(7)
    assert_adds_up(parts, emb @ embeddings(model, graph)[1][7])
    assert sorted(parts.past_items.tolist()) == [3, 12, 30]


def test_an_embedder_that_is_there_is_used(planted: Callable) -> None:
    graph = planted()
    model, given = gtc_of(graph), (graph.features, graph.edge_index_dict, graph.edge_weight_dict)
    embedder = model.user_embedder(*given)
    items = torch.tensor([3, 30])
    expected = Explainer(model, *given).user(items).score_parts(7)
    model.user_embedder = None  # not asked for
    found = Explainer(model, *given, user_embedder=embedder).user(items).score_parts(7)
    torch.testing.assert_close(found.by_source, expected.by_source)


def test_nothing_is_changed_and_no_gradient_passes(planted: Callable, unchanged: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, heads=True)
    with unchanged(model, graph.features, graph.edge_index_dict):
        parts = explainer_of(model, graph).user(1).score_parts(2)
    assert not any(x.requires_grad for x in parts if isinstance(x, Tensor))


def test_wrong_arguments_are_named(planted: Callable) -> None:
    graph = planted()
    explainer = explainer_of(gtc_of(graph), graph)
    with pytest.raises(ValueError, match=r"'user' must be a row, 0 to 59 \(got 60\)"):
        explainer.user(60)
    with pytest.raises(ValueError, match=r"'item' must be a row, 0 to 39 \(got -1\)"):
        explainer.user(0).score_parts(-1)
    with pytest.raises(ValueError, match=r"'item' must be a row or \[8\] \(got \[9\]\)"):
        explainer.user(0).score_parts(torch.zeros(9))
    with pytest.raises(ValueError, match=r"'user_emb' must be \[8\] \(got \[1, 8\]\)"):
        explainer.user(torch.tensor([1]), torch.zeros(1, 8))
    with pytest.raises(ValueError, match="item 40"):
        explainer.user(torch.tensor([40]))
    with pytest.raises(ValueError, match=r"'name' must be one of \['interactions', 'image', "):
        explainer.user(0).score_parts(0).share("sound")
    with pytest.raises(ValueError, match=r"'name' must be one of \['image', 'text'\]"):
        explainer.user(0).directions("sound")


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("kind", [LightGCN, FREEDOM])
def test_parts_of_the_baselines_add_up(planted: Callable, kind: type, layers: int) -> None:
    graph, torch_seed = planted(), torch.manual_seed(0)
    assert torch_seed is not None
    if kind is LightGCN:
        model: GraphRecommender = LightGCN(60, 40, 8, num_layers=layers)
    else:
        model = FREEDOM(60, 40, graph.in_channels, 8, num_item_layers=layers)
    user_emb, item_emb = embeddings(model, graph)
    for user, item in ((0, 0), (31, 21), (59, 39)):
        parts = explainer_of(model, graph).user(user).score_parts(item)
        assert_adds_up(parts, user_emb[user] @ item_emb[item])
        assert parts.sources == ("interactions",) and parts.bias == 0
        assert (parts.similar_items.numel() > 0) == (kind is FREEDOM and layers > 0)


def test_how_the_filter_responds_is_computed_once(planted: Callable) -> None:
    graph = planted()
    explainer = explainer_of(gtc_of(graph), graph)
    first = explainer.response("image")
    assert explainer.response("image") is first is not explainer.response("text")
    expected = explainer_of(gtc_of(graph), graph).user(7).directions("image", 2)
    torch.testing.assert_close(explainer.user(7).directions("image", 2), expected)


def test_only_a_user_of_unknown_id_costs_an_embedder(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph)
    explainer, made = explainer_of(model, graph), []
    make = model.user_embedder
    model.user_embedder = lambda *args: made.append(1) or make(*args)
    explainer.user(3)
    explainer.user(torch.tensor([1, 2]), torch.ones(8))
    assert made == []
    explainer.user(torch.tensor([1, 2]))
    explainer.user(torch.tensor([5]))
    assert made == [1]
