from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gtc_pyg.functional import spectral_factors
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import GraphRecommender, ItemBias, LightGCN, SpectralHead
from gtc_pyg.models.registry import MODELS, settings_of
from gtc_pyg.nn import BPR, SampledSoftmax
from tests.models.graphs import arguments as given
from tests.models.graphs import csr_of, gtc_of, recommender


def baseline(graph: SimpleNamespace, name: str) -> GraphRecommender:
    torch.manual_seed(0)
    content = [] if name == "lightgcn" else [graph.in_channels]
    return MODELS[name](graph.num_users, graph.num_items, *content, 8)


@pytest.mark.parametrize("name", ["freedom", "mgcn"])
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
        ((4, 4, 8, None, (), -0.1), r"'edge_dropout' must lie in \[0, 1\) \(got -0.1\)"),
        ((4, 4, 8, BPR), r"'ranking' must be a RankingLoss, such as BPR\(\) \(got BPR\)"),
        ((4, 4, 8, "BPR"), r"'ranking' must be a RankingLoss, such as BPR\(\) \(got str\)"),
        ((4, 4, 8, None, (), 1.0), r"'edge_dropout' must lie in \[0, 1\) \(got 1.0\)"),
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


@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("num_negatives", [1, 7])
def test_rank_loss_of_some_users_and_items_is_that_of_all(
    planted: Callable, batch_of: Callable, num_negatives: int, scale: float
) -> None:
    graph = planted()
    loss = BPR(scale) if num_negatives == 1 else SampledSoftmax(num_negatives, scale)
    model = GraphRecommender(60, 40, 8, ranking=loss, heads=[ItemBias(), SpectralHead(5)])
    model.prepare(*given(graph)[1:])
    torch.nn.init.normal_(model.item_bias.weight)
    csr, (user, pos, neg) = csr_of(graph), (ids[:20] for ids in batch_of(graph))
    user_emb, item_emb = torch.randn(60, 8), torch.randn(40, 8)
    expected = model.rank_loss(user_emb, item_emb, user, pos, neg, csr)
    users, row = user.unique(return_inverse=True)
    items, column = torch.cat([pos, neg]).unique(return_inverse=True)
    assert users.numel() < 60 and items.numel() < 40
    some = user_emb[users], item_emb[items], row, *column.chunk(2), csr, users, items
    torch.testing.assert_close(model.rank_loss(*some), expected)
    score = scale * user_emb @ item_emb.t() + model.item_bias.weight.t()  # no spectral head
    if num_negatives == 1:
        by_hand = F.softplus(score[user, neg] - score[user, pos]).mean()
    else:
        own = csr[ITEM_TO_USER].to_dense() > 0
        others = torch.where(own, 0, score.exp())[:, neg[:7].unique()].sum(1)[user]
        by_hand = (1 + others / score[user, pos].exp()).log().mean()
    torch.testing.assert_close(expected, by_hand)


@pytest.mark.parametrize("name", ["gtc", "freedom", "lightgcn"])
def test_start_from_takes_the_directions_of_the_factors(planted: Callable, name: str) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    edges = edges[:, (edges[0] != 3) & (edges[1] != 5)]
    torch.manual_seed(0)
    model = gtc_of(graph) if name == "gtc" else baseline(graph, name)
    assert model.init_method == "random"
    before = [e.weight.detach().clone() for e in (model.user_emb, model.item_emb)]
    model.start_from(edges, length=0.7)
    assert model.init_method == "spectral, length 0.7"
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
    first.history.rows_of_all(model, "image", None, torch.ones(2), lambda: torch.ones(2))
    assert (len(first.history), len(second.history)) == (1, 0)
    assert first.symmetric is not None and pickle.loads(pickle.dumps(first)).history is None
    assert model.training_graph(first)._propagation[0] is first.symmetric  # made once


def test_prepare_fits_once_and_says_so_in_the_state(planted: Callable) -> None:
    graph = planted()
    model = LightGCN(60, 40, 8, heads=[SpectralHead(5)])
    model.prepare(*given(graph)[1:])
    assert bool(model.state_dict()["prepared"]) and model.heads[0].added_degree > 0
    torch.testing.assert_close(model.user_emb.weight.norm(dim=1), torch.full((60,), 0.8))
    state = {name: x.clone() for name, x in model.state_dict().items()}
    torch.nn.init.ones_(model.user_emb.weight)
    model.prepare(*given(graph)[1:])
    assert (model.user_emb.weight == 1).all()
    assert torch.equal(model.heads[0].item, state["heads.0.item"])


def test_without_a_spectral_start_embeddings_stay(planted: Callable) -> None:
    graph = planted()
    model = LightGCN(60, 40, 8, heads=[SpectralHead(5)])
    before = model.user_emb.weight.detach().clone()
    model.prepare(*given(graph)[1:], spectral_start=False)
    assert torch.equal(model.user_emb.weight, before) and model.init_method == "random"
    assert model.heads[0].added_degree > 0


def test_tables_are_those_with_a_row_for_each_node() -> None:
    model = LightGCN(6, 4, 8, heads=[ItemBias()])
    found = {name: (kind, table.weight.shape) for name, kind, table in model.tables()}
    assert found == {
        "user_emb": ("user", (6, 8)),
        "item_emb": ("item", (4, 8)),
        "item_bias": ("item", (4, 1)),
    }
    assert [name for name, _, _ in LightGCN(6, 4, 8).tables()] == ["user_emb", "item_emb"]


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
    settings = settings_of(found)
    assert settings == settings_of(expected)
    assert all(type(settings[key]) is type(plain[key]) for key in plain)
    for key, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[key], value), key


def test_a_recommender_of_ones_own_takes_numpy_numbers() -> None:
    own = GraphRecommender(np.int64(3), np.array(5))
    assert (own.num_users, own.num_items) == (3, 5)
    assert [type(value) for value in (own.num_users, own.num_items)] == [int] * 2
