from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gtc_pyg.functional import low_pass_factors
from gtc_pyg.graph import CSRGraph, SampledNodes
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.models import LightGCN, SpectralHead
from gtc_pyg.models.heads.spectral_head import scale_of
from tests.models.graphs import arguments, gtc_of, with_edges


def fitted(
    graph: SimpleNamespace, num_item_layers: int = 1, **settings: Any
) -> tuple[SpectralHead, CSRGraph]:
    r"""A head of four columns that serves a model of so many layers, and the graph."""
    head = SpectralHead(4, **settings)
    model = gtc_of(graph, heads=[head], num_item_layers=num_item_layers)
    return head, model.csr_graph(*arguments(graph)[1:])


def test_a_user_is_the_sum_of_the_messages_of_their_items(planted: Callable) -> None:
    head, csr = fitted(planted())
    users = head.users(csr)
    to_user = csr[ITEM_TO_USER].to_dense()
    for u in range(csr.num_users):
        items = to_user[u].nonzero().view(-1)
        messages = sum(head.message[i] for i in items.tolist())
        expected = messages / (items.numel() + float(head.added_degree)) ** 0.5
        torch.testing.assert_close(users[u], expected)
        past = head.past(csr_of_user(csr, items), items)
        torch.testing.assert_close(past.sum(dim=0), expected)
    some = torch.tensor([2, 31])
    assert torch.equal(head.users(csr, some), users[some])


def csr_of_user(csr: CSRGraph, items: torch.Tensor) -> CSRGraph:
    edges = torch.stack([torch.zeros_like(items), items])
    return LightGCN(1, csr.num_items).csr_graph({USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)})


@pytest.mark.parametrize("num_item_layers", [0, 1, 2])
def test_parts_of_an_item_add_up_to_its_columns(planted: Callable, num_item_layers: int) -> None:
    head, csr = fitted(planted(), num_item_layers, strength=2.0, debiasing=0.5)
    items = head.items(csr, num_item_layers)
    for item in (0, 17, 39):
        own, rows, near = head.item_parts(csr, num_item_layers, item)
        assert (rows.numel() > 0) == (num_item_layers > 0)
        torch.testing.assert_close(own + near.sum(dim=0), items[item], rtol=1e-4, atol=1e-6)


def test_it_has_no_weights_and_is_part_of_the_state(planted: Callable) -> None:
    graph = planted()
    model, other = (gtc_of(graph, heads=[SpectralHead(4)]) for _ in range(2))
    head, csr = model.heads[0], model.csr_graph(*arguments(graph)[1:])
    assert not list(head.parameters())
    other.heads[0].item.zero_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.heads[0].users(csr), head.users(csr))
    assert torch.equal(other.heads[0].items(csr, 1), head.items(csr, 1))


def test_sampled_items_stand_for_all(planted: Callable) -> None:
    graph = planted()
    head, csr = fitted(graph, debiasing=0.7)
    assert head.item_scale.std() > 0
    of_user, of_item = (csr[key].crow_indices().diff() for key in (ITEM_TO_USER, USER_TO_ITEM))
    items = torch.arange(csr.num_items).flip(0)
    nodes = SampledNodes(torch.arange(csr.num_users), items, of_user, of_item.flip(0))
    edges = {}
    for key, edge_index in graph.edge_index_dict.items():
        flip = [csr.num_items - 1 if kind == "item" else None for kind in (key[0], key[2])]
        rows = [x if last is None else last - x for x, last in zip(edge_index, flip, strict=True)]
        edges[key] = torch.stack(rows)
    sampled = gtc_of(graph).csr_graph(edges, graph.edge_weight_dict, nodes)
    torch.testing.assert_close(head.users(sampled), head.users(csr))
    torch.testing.assert_close(head.items(sampled, 1), head.items(csr, 1).flip(0))


def test_use_before_prepare_is_refused(planted: Callable) -> None:
    graph = planted()
    model = LightGCN(graph.num_users, graph.num_items, heads=[SpectralHead(4)])
    for use in (model, lambda *args: model.training_graph(*args[1:])):
        with pytest.raises(RuntimeError, match="not fitted: call the model's prepare"):
            use(*arguments(graph))


@pytest.mark.parametrize("num_item_layers", [0, 1, 2])
def test_it_is_fitted_to_the_graph_and_to_as_many_layers(
    planted: Callable, num_item_layers: int
) -> None:
    graph = planted()
    head, csr = fitted(graph, num_item_layers)
    similar = csr["item", "similar", "item"] if num_item_layers else None
    sizes = graph.num_users, graph.num_items, 4
    edges = graph.edge_index_dict[USER_TO_ITEM]
    item, message, _ = low_pass_factors(edges, *sizes, similar, num_item_layers)
    torch.testing.assert_close(head.item @ head.message.t(), item @ message.t())
    similar = csr_with_similar(graph)
    other = low_pass_factors(edges, *sizes, similar, 1 + num_item_layers)
    assert not torch.allclose(item @ message.t(), other[0] @ other[1].t(), atol=1e-2)


def csr_with_similar(graph: SimpleNamespace) -> torch.Tensor:
    return gtc_of(graph).csr_graph(*arguments(graph)[1:])["item", "similar", "item"]


@pytest.mark.parametrize("own_layers", [0, 2])
def test_layers_of_its_own_go_before_those_of_the_model(planted: Callable, own_layers: int) -> None:
    graph = planted()
    model = LightGCN(60, 40, 8, heads=[SpectralHead(4, num_item_layers=own_layers)])
    model.prepare(*arguments(graph)[1:])
    csr = model.csr_graph(*arguments(graph)[1:])
    head, (expected, whole) = model.heads[0], fitted(graph, own_layers)
    torch.testing.assert_close(head.items(csr, 0), expected.items(whole, own_layers))


def test_the_strength_is_on_both_sides(planted: Callable) -> None:
    graph = planted()
    head, csr = fitted(graph)
    strong, _ = fitted(graph, strength=4.0)
    torch.testing.assert_close(strong.users(csr), 2 * head.users(csr))
    torch.testing.assert_close(strong.items(csr, 1), 2 * head.items(csr, 1))


@pytest.mark.parametrize("debiasing", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("num_item_layers", [0, 2])
def test_items_are_divided_by_a_power_of_their_length(
    planted: Callable, num_item_layers: int, debiasing: float
) -> None:
    graph = planted()
    plain, csr = fitted(graph, num_item_layers)
    head, _ = fitted(graph, num_item_layers, strength=4.0, debiasing=debiasing)
    before = csr.with_similar(plain.item, num_item_layers)
    after = head.items(csr, num_item_layers)
    expected = before / before.norm(dim=1, keepdim=True) ** debiasing
    torch.testing.assert_close(after, 2 * before.norm() / expected.norm() * expected)
    torch.testing.assert_close(head.users(csr), 2 * plain.users(csr))


@pytest.mark.parametrize("debiasing", [0.7, 1.0])
def test_an_untouched_item_stays_at_zero(planted: Callable, debiasing: float) -> None:
    edges = planted().edge_index_dict[USER_TO_ITEM]
    head, csr = fitted(with_edges(planted(), edges[:, edges[1] != 2]), 0, debiasing=debiasing)
    items = head.items(csr, 0)
    lengths, before = items.norm(dim=1), head.item.norm(dim=1)
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
    head, _ = fitted(graph, 0, regularization=0.1)
    edges = graph.edge_index_dict[USER_TO_ITEM]
    sizes = graph.num_users, graph.num_items, 4
    item, message, added = low_pass_factors(edges, *sizes, regularization=0.1)
    torch.testing.assert_close(head.item @ head.message.t(), item @ message.t())
    assert float(head.added_degree) == pytest.approx(0.1 * edges.size(1) / graph.num_users) == added
    with pytest.raises(ValueError, match=r"'regularization' must be from .*\(got 0\)"):
        low_pass_factors(edges, *sizes, regularization=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strength", -0.1),
        ("strength", math.inf),
        ("strength", math.nan),
        ("debiasing", -0.1),
        ("debiasing", 1.5),
        ("regularization", 0),
        ("regularization", math.nan),
        ("regularization", 1e-300),
        ("regularization", 1e38),
        ("strength", 1e300),
        ("channels", 0),
        ("num_item_layers", -1),
    ],
)
def test_arguments_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' must be .*\(got {re.escape(str(value))}\)"):
        SpectralHead(**{name: value})


@pytest.mark.parametrize("regularization", [1e-6, 1e6])
@pytest.mark.parametrize("strength", [1e-6, 1e6])
def test_the_ends_of_the_ranges_give_finite_columns(
    planted: Callable, regularization: float, strength: float
) -> None:
    graph = planted()
    head = SpectralHead(6, strength, debiasing=1.0, regularization=regularization)
    model = gtc_of(graph, heads=[head])
    for table in model(*arguments(graph)):
        assert bool(table.isfinite().all())
        assert bool((table[:, -6:].norm(dim=0) > 0).all())


def test_edge_weights_may_be_in_double_precision(planted: Callable) -> None:
    graph = planted()
    expected, csr = fitted(graph)
    graph.edge_weight_dict = {key: x.double() for key, x in graph.edge_weight_dict.items()}
    head, _ = fitted(graph)
    torch.testing.assert_close(head.users(csr), expected.users(csr))


def test_a_graph_without_interactions_is_refused(planted: Callable) -> None:
    graph = with_edges(planted(), torch.empty(2, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="at least one interaction"):
        fitted(graph)
