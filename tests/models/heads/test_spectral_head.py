from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from gtc_pyg.functional import low_pass_factors
from gtc_pyg.graph.csr_graph import SampledNodes
from gtc_pyg.models.heads.spectral_head import LowPass, scale_of
from tests.models.graphs import arguments, gtc_of


def fitted(graph, num_item_layers=1, debiasing=0.0):
    model = gtc_of(graph, low_pass_strength=1.0, low_pass_channels=4, low_pass_debiasing=debiasing)
    csr = model.csr_graph(*arguments(graph)[1:])
    low_pass = LowPass(graph.num_items, 4, debiasing=debiasing)
    low_pass.fit(csr, num_item_layers)
    return low_pass, model, csr


def test_a_user_is_the_sum_of_what_the_items_tell(planted: Callable) -> None:
    low_pass, _, csr = fitted(planted())
    users = low_pass.users(csr)
    to_user = csr["item", "rev_rates", "user"].to_dense()
    for u in range(csr.num_users):
        items = to_user[u].nonzero().view(-1)
        told = sum(low_pass.told[i] for i in items.tolist())
        expected = told / (items.numel() + float(low_pass.added)) ** 0.5
        torch.testing.assert_close(users[u], expected)


def test_it_has_no_weights_and_is_part_of_the_state(planted: Callable) -> None:
    graph = planted()
    low_pass, model, csr = fitted(graph)
    assert not list(low_pass.parameters())
    other = gtc_of(graph, low_pass_strength=1.0, low_pass_channels=4)
    other.low_pass.item.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.low_pass.users(csr), low_pass.users(csr))
    assert torch.equal(other.low_pass.items(csr, 1), low_pass.items(csr, 1))


def test_sampled_items_stand_for_all(planted: Callable) -> None:
    graph = planted()
    low_pass, model, csr = fitted(graph, debiasing=0.7)
    assert low_pass.item_scale.std() > 0
    degrees = [csr[key].crow_indices().diff() for key in list(csr)[:2]]
    of_item, of_user = degrees if degrees[0].numel() == csr.num_items else degrees[::-1]
    items = torch.arange(csr.num_items).flip(0)
    nodes = SampledNodes(torch.arange(csr.num_users), items, of_user, of_item.flip(0))
    edges = {}
    for key, edge_index in graph.edge_index_dict.items():
        flip = [csr.num_items - 1 if kind == "item" else None for kind in (key[0], key[2])]
        rows = [x if last is None else last - x for x, last in zip(edge_index, flip, strict=True)]
        edges[key] = torch.stack(rows)
    sampled = model.csr_graph(edges, graph.edge_weight_dict, nodes)
    torch.testing.assert_close(low_pass.users(sampled), low_pass.users(csr))
    torch.testing.assert_close(low_pass.items(sampled, 1), low_pass.items(csr, 1).flip(0))


def test_what_was_not_fitted_says_so(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, low_pass_strength=1.0)
    model.low_pass = LowPass(graph.num_items, 4)
    for use in (model, lambda *args: model.training_graph(*args[1:])):
        with pytest.raises(RuntimeError, match="fit_low_pass"):
            use(*arguments(graph))


@pytest.mark.parametrize("value", [-0.1, float("inf"), float("nan")])
def test_a_strength_out_of_range_is_named(planted: Callable, value: float) -> None:
    with pytest.raises(ValueError, match=rf"'low_pass_strength' must be .*\(got {value}\)"):
        gtc_of(planted(), low_pass_strength=value)


@pytest.mark.parametrize("num_item_layers", [0, 1, 2])
def test_it_is_fitted_to_the_graph_and_to_as_many_layers(
    planted: Callable, num_item_layers: int
) -> None:
    graph = planted()
    low_pass, _, csr = fitted(graph, num_item_layers)
    similar = csr["item", "similar", "item"]
    sizes = graph.num_users, graph.num_items, 4
    edges = graph.edge_index_dict["user", "rates", "item"]
    options = (similar, num_item_layers) if num_item_layers else ()
    item, told, _ = low_pass_factors(edges, *sizes, *options)
    torch.testing.assert_close(low_pass.item @ low_pass.told.t(), item @ told.t())
    other = low_pass_factors(edges, *sizes, similar, 1 + num_item_layers)
    assert not torch.allclose(item @ told.t(), other.item @ other.told.t(), atol=1e-2)


def test_the_strength_is_on_both_sides_and_can_be_set(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, low_pass_strength=0.5, low_pass_channels=4)
    csr = model.csr_graph(*arguments(graph)[1:])
    before = model.low_pass.users(csr), model.low_pass.items(csr, 1)
    model.low_pass_strength = 2.0
    after = model.low_pass.users(csr), model.low_pass.items(csr, 1)
    torch.testing.assert_close(after, tuple(2 * x for x in before))
    assert model.current_arguments()["low_pass_strength"] == 2.0
    with pytest.raises(ValueError, match=r"must be positive and finite \(got -1\)"):
        model.low_pass_strength = -1
    without = gtc_of(graph)
    assert without.low_pass_strength == 0
    with pytest.raises(AttributeError, match="low_pass_strength"):
        without.low_pass_strength = 1.0


@pytest.mark.parametrize("debiasing", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("num_item_layers", [0, 2])
def test_items_are_divided_by_a_power_of_their_length(
    planted: Callable, num_item_layers: int, debiasing: float
) -> None:
    graph = planted()
    plain, _, csr = fitted(graph, num_item_layers)
    low_pass = LowPass(graph.num_items, 4, strength=4.0, debiasing=debiasing)
    low_pass.fit(csr, num_item_layers)
    before = csr.with_similar(plain.item, num_item_layers)
    after = low_pass.items(csr, num_item_layers)
    expected = before / before.norm(dim=1, keepdim=True) ** debiasing
    torch.testing.assert_close(after, 2 * before.norm() / expected.norm() * expected)
    torch.testing.assert_close(low_pass.users(csr), 2 * plain.users(csr))


@pytest.mark.parametrize("debiasing", [0.7, 1.0])
def test_an_item_that_nobody_has_touched_stays_at_zero_and_takes_nothing_from_the_others(
    planted: Callable, debiasing: float
) -> None:
    graph = planted()
    for key, row in ((("user", "rates", "item"), 1), (("item", "rev_rates", "user"), 0)):
        edges = graph.edge_index_dict[key]
        graph.edge_index_dict[key] = edges[:, edges[row] != 2]
    model = gtc_of(
        graph,
        num_item_layers=0,
        low_pass_strength=1.0,
        low_pass_channels=4,
        low_pass_debiasing=debiasing,
    )
    items = model.low_pass.items(model.csr_graph(*arguments(graph)[1:]), 0)
    lengths, before = items.norm(dim=1), model.low_pass.item.norm(dim=1)
    assert lengths[2] == before[2] == 0 and lengths.isfinite().all()
    torch.testing.assert_close(items.square().sum(), before.square().sum())
    known = lengths[lengths > 0] / before[lengths > 0] ** (1 - debiasing)
    torch.testing.assert_close(known, known.mean().expand_as(known))


def test_what_the_iterations_leave_of_an_item_is_not_blown_up() -> None:
    length = torch.tensor([3.0, 4.0, 1e-6, 0.0])
    after = scale_of(length, 1.0) * length
    # The root mean square is 2.5: the third is divided by .0025, as if it were that long.
    expected = torch.tensor([1.0, 1.0, 4e-4, 0.0])
    torch.testing.assert_close(after, 5 * expected / expected.norm())
    torch.testing.assert_close(scale_of(length, 0.0), torch.ones(4))


def test_the_regularization_reaches_the_factors(planted: Callable) -> None:
    graph = planted()
    _, _, csr = fitted(graph)
    low_pass = LowPass(graph.num_items, 4, regularization=0.1)
    low_pass.fit(csr, 0)
    edges = graph.edge_index_dict["user", "rates", "item"]
    sizes = graph.num_users, graph.num_items, 4
    item, told, added = low_pass_factors(edges, *sizes, regularization=0.1)
    torch.testing.assert_close(low_pass.item @ low_pass.told.t(), item @ told.t())
    assert float(low_pass.added) == pytest.approx(0.1 * edges.size(1) / graph.num_users) == added
    with pytest.raises(ValueError, match=r"'regularization' must be positive .*\(got 0\)"):
        low_pass_factors(edges, *sizes, regularization=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("debiasing", -0.1), ("debiasing", 1.5), ("regularization", 0), ("regularization", math.nan)],
)
def test_other_arguments_out_of_range_are_named(planted: Callable, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"'low_pass_{name}' must be .*\(got {value}\)"):
        gtc_of(planted(), low_pass_strength=1.0, **{f"low_pass_{name}": value})


def test_a_graph_of_other_weights_and_one_without_interactions(planted: Callable) -> None:
    graph = planted()
    expected, _, csr = fitted(graph)
    weights = {key: weight.double() for key, weight in graph.edge_weight_dict.items()}
    model = gtc_of(graph, low_pass_strength=1.0, low_pass_channels=4)
    model.fit_low_pass(graph.edge_index_dict, weights)
    torch.testing.assert_close(model.low_pass.users(csr), expected.users(csr))
    for key in (("user", "rates", "item"), ("item", "rev_rates", "user")):
        graph.edge_index_dict[key] = graph.edge_index_dict[key][:, :0]
    with pytest.raises(ValueError, match="at least one interaction"):
        model.fit_low_pass(graph.edge_index_dict, weights)
