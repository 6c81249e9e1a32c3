from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gtc_pyg.models.csr_graph import SampledNodes
from gtc_pyg.models.low_pass import LowPass
from tests.models.graphs import arguments, gtc_of


def fitted(graph, num_item_layers=1):
    model = gtc_of(graph, low_pass_strength=1.0, low_pass_channels=4)
    csr = model.csr_graph(*arguments(graph)[1:])
    low_pass = LowPass(graph.num_items, 4)
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
    assert torch.equal(other.low_pass.items(csr), low_pass.items(csr))


def test_sampled_items_stand_for_all(planted: Callable) -> None:
    graph = planted()
    low_pass, model, csr = fitted(graph)
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
    torch.testing.assert_close(low_pass.items(sampled), low_pass.items(csr).flip(0))


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


def test_new_users_know_what_the_same_old_ones_know(planted: Callable) -> None:
    low_pass, _, csr = fitted(planted(), num_item_layers=0)
    alone = low_pass.users(csr)[:3]
    assert (alone[0] - alone[1]).abs().sum() > 0
    assert low_pass.weight_of(torch.tensor(0)).isfinite()
