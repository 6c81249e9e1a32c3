from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.graph.make_graph import make_graph
from tests.models.graphs import pairs, recommender


def test_the_graph_is_the_same_in_every_form(planted: Callable, to_adj: Callable) -> None:
    graph = planted()
    sizes = {"user": graph.num_users, "item": graph.num_items}
    expected = recommender(graph).csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
    adjs = {
        key: to_adj(edges, sizes[key[0]], sizes[key[2]], graph.edge_weight_dict.get(key))
        for key, edges in graph.edge_index_dict.items()
    }
    out = recommender(graph).csr_graph(adjs, graph.edge_weight_dict)
    assert out.keys() == expected.keys() == {USER_TO_ITEM, ITEM_TO_USER, SIMILAR_ITEMS}
    for key in expected:
        torch.testing.assert_close(out[key].to_dense(), expected[key].to_dense())


@pytest.mark.parametrize("missing", [USER_TO_ITEM, ITEM_TO_USER])
def test_a_missing_direction_is_named(planted: Callable, missing: Any) -> None:
    graph = planted()
    del graph.edge_index_dict[missing]
    with pytest.raises(ValueError, match=rf"'edge_index_dict' lacks .*{missing[1]}.*ToUndirected"):
        recommender(graph).csr_graph(graph.edge_index_dict)


def test_the_item_graph_is_asked_for_only_by_those_who_use_it(planted: Callable) -> None:
    graph = planted()
    del graph.edge_index_dict[SIMILAR_ITEMS]
    model = recommender(graph)
    assert SIMILAR_ITEMS not in model.csr_graph(graph.edge_index_dict)
    model.num_item_layers = 1
    with pytest.raises(ValueError, match=r"'edge_index_dict' lacks .*similar.*ItemKNNGraph"):
        model.csr_graph(graph.edge_index_dict)


def test_swapped_directions_raise(planted: Callable) -> None:
    graph = planted()
    edges = graph.edge_index_dict
    edges[USER_TO_ITEM], edges[ITEM_TO_USER] = edges[ITEM_TO_USER], edges[USER_TO_ITEM]
    with pytest.raises(ValueError, match=r"'adj' holds destination .*, expected 0 to 39"):
        recommender(graph).csr_graph(edges)


def test_interactions_that_are_not_what_they_should_be_are_named(planted: Callable) -> None:
    graph = planted()
    model, edges = recommender(graph), graph.edge_index_dict
    with pytest.raises(ValueError, match="every interaction once"):
        twice = {key: torch.cat([adj, adj[:, :1]], dim=1) for key, adj in edges.items()}
        model.csr_graph(twice)
    with pytest.raises(ValueError, match="every interaction once"):
        crow, col = torch.tensor([0, 2, 2]), torch.tensor([1, 1])  # of an adjacency that is CSR
        to_item = torch.sparse_csr_tensor(crow, col, torch.ones(2), size=(2, 3))
        make_graph({USER_TO_ITEM: to_item, ITEM_TO_USER: to_item.t().to_sparse_csr()}, None, 3, 2)
    with pytest.raises(ValueError, match="without weights"):
        weighted = model.csr_graph(edges)
        values = torch.rand(weighted[USER_TO_ITEM].values().numel()) + 0.5
        adj = torch.sparse_csr_tensor(
            weighted[USER_TO_ITEM].crow_indices(), weighted[USER_TO_ITEM].col_indices(), values
        )
        model.csr_graph({**edges, USER_TO_ITEM: adj})
    with pytest.raises(ValueError, match="must be the same interactions"):
        model.csr_graph({**edges, ITEM_TO_USER: edges[ITEM_TO_USER][:, 1:]})
    with pytest.raises(ValueError, match="must not require a gradient"):
        weight = graph.edge_weight_dict[SIMILAR_ITEMS].clone().requires_grad_()
        model.csr_graph(edges, {SIMILAR_ITEMS: weight})


def test_without_dropout_the_training_graph_is_the_graph(planted: Callable) -> None:
    graph = planted()
    model = recommender(graph)
    out = model.training_graph(graph.edge_index_dict, graph.edge_weight_dict)
    expected = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
    for key in expected:
        torch.testing.assert_close(out[key].to_dense(), expected[key].to_dense())


@pytest.mark.parametrize("edge_dropout", [0.2, 0.8, 0.9999])
def test_pruning_keeps_its_share_of_the_interactions(
    planted: Callable, edge_dropout: float
) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    out = recommender(graph, edge_dropout).training_graph(graph.edge_index_dict)
    kept = pairs(out[USER_TO_ITEM])
    assert len(kept) == max(1, round((1 - edge_dropout) * edges.size(1)))
    assert kept <= set(zip(*edges.tolist(), strict=True))


def test_pruning_takes_both_directions_alike(planted: Callable) -> None:
    graph = planted()
    model = recommender(graph, 0.5)
    out = model.training_graph(graph.edge_index_dict, graph.edge_weight_dict)
    full = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
    torch.testing.assert_close(out[USER_TO_ITEM].to_dense().t(), out[ITEM_TO_USER].to_dense())
    torch.testing.assert_close(out[SIMILAR_ITEMS].to_dense(), full[SIMILAR_ITEMS].to_dense())


def test_popular_edges_are_pruned_first(planted: Callable) -> None:
    graph = planted()
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    degree_user, degree_item = torch.bincount(user), torch.bincount(item)
    model, kept = recommender(graph, 0.5), torch.zeros(graph.num_users, graph.num_items)
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        out = model.training_graph(graph.edge_index_dict, generator=generator)
        kept += out[ITEM_TO_USER].to_dense() / 200
    popularity = (degree_user[user] * degree_item[item]).double()
    order = popularity.argsort()
    share, third = kept[user, item][order], user.numel() // 3
    # 0.5 on the whole; a share's standard error is at most 0.5 / sqrt(200 * third) < 0.004.
    assert share[:third].mean() > 0.55
    assert share[-third:].mean() < 0.45


def test_a_generator_decides_what_is_pruned(planted: Callable) -> None:
    graph = planted()
    model = recommender(graph, 0.5)

    def draw(seed: int) -> set[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed)
        out = model.training_graph(graph.edge_index_dict, generator=generator)
        return pairs(out[USER_TO_ITEM])

    state = torch.get_rng_state()
    assert draw(0) == draw(0) != draw(1)
    assert torch.equal(torch.get_rng_state(), state)
