from __future__ import annotations

import inspect
import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gtc_pyg.experiment import MODELS
from gtc_pyg.functional import spectral_factors
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import GraphRecommender, LightGCN
from tests.models.graphs import MODALITIES, csr_of, recommender
from tests.models.graphs import arguments as given

BASELINES = ["lightgcn", "freedom", "mgcn"]


def baseline(graph: SimpleNamespace, name: str) -> GraphRecommender:
    torch.manual_seed(0)
    content = [] if name == "lightgcn" else [graph.in_channels]
    return MODELS[name](graph.num_users, graph.num_items, *content, 8)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("modalities", MODALITIES)
def test_every_parameter_of_a_baseline_receives_a_gradient(
    planted: Callable, batch_of: Callable, modalities: tuple[str, ...], name: str
) -> None:
    graph = planted(*modalities)
    model = baseline(graph, name)
    sum(model.loss(*batch_of(graph), *given(graph)).values()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", BASELINES)
def test_forward_and_loss_of_a_baseline_change_nothing(
    planted: Callable, batch_of: Callable, unchanged: Callable, name: str
) -> None:
    graph = planted()
    model, batch = baseline(graph, name), batch_of(graph)
    with unchanged(model, *given(graph), batch):
        model(*given(graph))
        model.loss(*batch, *given(graph))


@pytest.mark.parametrize("name", BASELINES[1:])
def test_a_baseline_of_similar_items_requires_their_graph(planted: Callable, name: str) -> None:
    graph = planted()
    del graph.edge_index_dict[SIMILAR_ITEMS]
    with pytest.raises(ValueError, match=r"lacks .*similar.*ItemKNNGraph"):
        baseline(graph, name)(*given(graph))


def test_csr_passes_through(planted: Callable) -> None:
    graph = planted()
    once = recommender(graph).csr_graph(graph.edge_index_dict)
    twice = recommender(graph).csr_graph(once)
    assert twice is once
    plain = recommender(graph).csr_graph(dict(once))
    assert all(plain[key] is once[key] for key in once)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 4), r"'num_users' must be at least 1 \(got 0\)"),
        ((4, 0), r"'num_items' must be at least 1 \(got 0\)"),
        ((4, 4, -0.1), r"'edge_dropout' must lie in \[0, 1\) \(got -0.1\)"),
        ((4, 4, 1.0), r"'edge_dropout' must lie in \[0, 1\) \(got 1.0\)"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GraphRecommender(*arguments)


def test_the_training_graph_changes_nothing(planted: Callable, unchanged: Callable) -> None:
    graph = planted()
    model = recommender(graph, 0.5)
    with unchanged(model, graph.edge_index_dict, graph.edge_weight_dict):
        keys = list(graph.edge_index_dict)
        model.training_graph(graph.edge_index_dict, graph.edge_weight_dict)
        assert list(graph.edge_index_dict) == keys


def test_the_ranking_loss_equals_bpr_by_hand() -> None:
    user_emb = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    item_emb = torch.tensor([[1.0, 1.0], [3.0, -1.0]])
    user, pos, neg = torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0, 1])
    loss = GraphRecommender(2, 2)._rank_loss(user_emb, item_emb, user, pos, neg)
    # Margins: 3 - 1 and 2 - (-2).
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-4))) / 2
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["gtc", "freedom", "lightgcn"])
def test_embeddings_start_in_the_directions_of_the_spectral_factors(
    planted: Callable, name: str
) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    edges = edges[:, (edges[0] != 3) & (edges[1] != 5)]
    torch.manual_seed(0)
    sizes, widths = (graph.num_users, graph.num_items), graph.in_channels
    model = LightGCN(*sizes, 8) if name == "lightgcn" else MODELS[name](*sizes, widths, 8)
    before = [e.weight.detach().clone() for e in (model.user_emb, model.item_emb)]
    model.start_from(edges, length=0.7)
    tables = spectral_factors(edges, graph.num_users, graph.num_items, 8)
    for embedding, factors, drawn in zip(
        (model.user_emb, model.item_emb), tables, before, strict=True
    ):
        known = factors.norm(dim=1) > 0
        assert 1 <= (~known).sum() < 5
        torch.testing.assert_close(embedding.weight[known], 0.7 * F.normalize(factors[known]))
        torch.testing.assert_close(embedding.weight[~known], drawn[~known])
        assert embedding.weight.requires_grad


def test_columns_beyond_the_number_of_factors_stay_as_drawn() -> None:
    torch.manual_seed(0)
    model = LightGCN(3, 4, 6)
    before = model.item_emb.weight.detach().clone()
    model.start_from(torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3]]))
    torch.testing.assert_close(model.item_emb.weight[:, 3:], before[:, 3:])
    assert not torch.isclose(model.item_emb.weight[:, :3], before[:, :3]).all(dim=1).any()


def test_no_row_starts_at_zero() -> None:
    # Five pairs by themselves beside a dense part: their factors are zero but for rounding.
    dense = torch.rand(1500, 1500, generator=torch.Generator().manual_seed(0)) < 0.13
    alone = torch.arange(1500, 1505).expand(2, -1)
    model = LightGCN(1505, 1505, 16)
    model.start_from(torch.cat([dense.nonzero().t(), alone], dim=1))
    for embedding in (model.user_emb, model.item_emb):
        assert embedding.weight.norm(dim=1).min() > 0.01


@pytest.mark.parametrize("length", [0.0, -1.0, float("nan"), float("inf")])
def test_a_length_must_be_positive_and_finite(length: float) -> None:
    with pytest.raises(ValueError, match="'length' must be positive and finite"):
        LightGCN(3, 4).start_from(torch.tensor([[0, 1], [1, 2]]), length)


def test_each_training_graph_has_a_history_of_its_own(planted: Callable) -> None:
    graph = planted()
    model = recommender(graph)
    whole = csr_of(graph)
    first, second = (model.training_graph(whole) for _ in range(2))
    assert whole.history is None
    assert first.history is not second.history
    first.history[model] = {"image": torch.ones(2)}
    assert len(second.history) == 0
    assert first.symmetric is not None and pickle.loads(pickle.dumps(first)).history is None
    assert model.training_graph(first)._propagation[0] is first.symmetric  # made once


def numbers_of(name: str) -> dict[str, Any]:
    parameters = inspect.signature(MODELS[name]).parameters.values()
    found = {p.name: p.default for p in parameters if type(p.default) in (int, float)}
    return {"num_users": 60, "num_items": 40, **found}


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, lambda value: np.asarray(value)[()]])
@pytest.mark.parametrize("name", MODELS)
def test_scalars_of_numpy_and_torch_make_the_same_model(name: str, form: Callable) -> None:
    plain = numbers_of(name)
    if name != "lightgcn":
        plain["in_channels"] = {"text": 3}
    exact = {key: torch.float64 for key, value in plain.items() if isinstance(value, float)}
    given = {}
    for key, value in plain.items():
        more = {"dtype": exact[key]} if form is torch.tensor and key in exact else {}
        if isinstance(value, dict):
            given[key] = {inner: form(width) for inner, width in value.items()}
        else:
            given[key] = form(value, **more)
    torch.manual_seed(0)
    expected = MODELS[name](**plain)
    torch.manual_seed(0)
    found = MODELS[name](**given)
    assert found.arguments == expected.arguments == plain
    assert all(type(found.arguments[key]) is type(plain[key]) for key in plain)
    assert found.current_arguments() == expected.current_arguments()
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_a_recommender_of_ones_own_takes_numpy_numbers() -> None:
    class Own(GraphRecommender):
        def __init__(self, num_users: int, num_items: int, width: int = 4) -> None:
            super().__init__(num_users, num_items)
            self.width = width

    own = Own(np.int64(3), np.array(5), width=np.uint8(7))
    assert own.arguments == {"num_users": 3, "num_items": 5, "width": 7}
    assert [type(value) for value in (own.num_users, own.num_items, own.width)] == [int] * 3
