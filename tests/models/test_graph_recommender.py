from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_geometric.nn import LGConv

from gtc_pyg.experiment import MODELS
from gtc_pyg.functional import spectral_factors
from gtc_pyg.models import GraphRecommender, LightGCN
from gtc_pyg.models.graph_recommender import (
    ITEM_TO_USER,
    SIMILAR_ITEMS,
    USER_TO_ITEM,
    CSRGraph,
)


def recommender(graph: SimpleNamespace, edge_dropout: float = 0.0) -> GraphRecommender:
    return GraphRecommender(graph.num_users, graph.num_items, edge_dropout)


def pairs(to_item: Tensor) -> set[tuple[int, int]]:
    item, user = to_item.to_dense().nonzero().t()
    return set(zip(user.tolist(), item.tolist(), strict=True))


def csr_of(graph: SimpleNamespace) -> CSRGraph:
    return recommender(graph).csr_graph(graph.edge_index_dict, graph.edge_weight_dict)


def with_isolated_nodes(graph: SimpleNamespace) -> SimpleNamespace:
    edges = graph.edge_index_dict[USER_TO_ITEM]
    edges = edges[:, (edges[0] > 2) & (edges[1] > 2)]
    graph.edge_index_dict[USER_TO_ITEM], graph.edge_index_dict[ITEM_TO_USER] = edges, edges.flip(0)
    return graph


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_layer_mean_equals_the_mean_of_stacked_lgconv_layers(
    planted: Callable, num_layers: int, isolated: bool
) -> None:
    graph = with_isolated_nodes(planted()) if isolated else planted()
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    edge_index = torch.stack([user, item + graph.num_users])
    edge_index = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    x = torch.randn(graph.num_users + graph.num_items, 3, requires_grad=True)
    layers = [x]
    for _ in range(num_layers):
        layers.append(LGConv()(layers[-1], edge_index))
    outs = csr_of(graph).layer_mean(x, num_layers), torch.stack(layers).mean(dim=0)
    torch.testing.assert_close(*outs)
    weights = torch.randn_like(x)
    grads = [torch.autograd.grad((out * weights).sum(), x)[0] for out in outs]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("dtype", [torch.float, torch.double])
@pytest.mark.parametrize("name", ["mean_of_items", "mean_of_users", "smooth"])
def test_means_and_sums_equal_the_dense_equations_with_their_gradients(
    planted: Callable, name: str, dtype: torch.dtype
) -> None:
    graph = with_isolated_nodes(planted())
    dense = torch.zeros(graph.num_users, graph.num_items, dtype=dtype)
    dense[tuple(graph.edge_index_dict[USER_TO_ITEM])] = 1
    if name == "mean_of_items":
        dense = dense / dense.sum(1, keepdim=True).clamp(min=1)
    elif name == "mean_of_users":
        dense = dense.t() / dense.t().sum(1, keepdim=True).clamp(min=1)
    else:
        source, target = graph.edge_index_dict[SIMILAR_ITEMS]
        dense = torch.zeros(graph.num_items, graph.num_items, dtype=dtype)
        dense[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS].to(dtype)
        assert not torch.equal(dense, dense.t())
    x = torch.randn(dense.size(1), 3, dtype=dtype, requires_grad=True)
    out = getattr(csr_of(graph), name)(x)
    assert out.dtype == dtype
    # The matrices of an edge_index are single precision, whatever they multiply.
    torch.testing.assert_close(out, dense @ x, rtol=1e-5, atol=1e-6)
    if name != "smooth":
        assert (out[:3] == 0).all()
    weight = torch.randn_like(out)
    (out * weight).sum().backward()
    torch.testing.assert_close(x.grad, dense.t() @ weight, rtol=1e-5, atol=1e-6)


def test_a_graph_in_double_precision_is_exact(planted: Callable) -> None:
    graph = planted()
    csr = CSRGraph({key: adj.double() for key, adj in csr_of(graph).items()})
    dense = csr[ITEM_TO_USER].to_dense()
    x = torch.randn(graph.num_items, 3, dtype=torch.double, requires_grad=True)
    expected = dense / dense.sum(1, keepdim=True) @ x
    torch.testing.assert_close(csr.mean_of_items(x), expected, rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(csr.mean_of_items, x)
    assert torch.autograd.gradcheck(csr.smooth, x)


def test_contains_tells_what_a_set_of_pairs_tells(planted: Callable) -> None:
    graph = planted()
    for dropout in (0.0, 0.5):
        csr = recommender(graph, dropout).training_graph(graph.edge_index_dict)
        kept = pairs(csr[USER_TO_ITEM])
        user, item = torch.cartesian_prod(torch.arange(60), torch.arange(40)).t()
        for order in (torch.arange(2400), torch.randperm(2400)):
            u, i = user[order], item[order]
            expected = [pair in kept for pair in zip(u.tolist(), i.tolist(), strict=True)]
            assert csr.contains(u, i).tolist() == expected


def test_an_empty_graph_contains_nothing_and_tells_nothing() -> None:
    empty = torch.empty(2, 0, dtype=torch.long)
    csr = GraphRecommender(3, 2).csr_graph({USER_TO_ITEM: empty, ITEM_TO_USER: empty})
    assert not csr.contains(torch.tensor([0, 2]), torch.tensor([0, 1])).any()
    assert torch.equal(csr.mean_of_items(torch.ones(2, 4)), torch.zeros(3, 4))
    assert torch.equal(csr.mean_of_users(torch.ones(3, 4)), torch.zeros(2, 4))
    assert torch.equal(csr.layer_mean(torch.ones(5, 4), 1), torch.full((5, 4), 0.5))
    assert csr.num_items_of_users.tolist() == [0, 0, 0]


def test_derived_matrices_of_a_pruned_graph_are_its_own(planted: Callable) -> None:
    graph = planted()
    full = csr_of(graph)
    x = torch.randn(graph.num_items, 3)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    stacked = torch.randn(graph.num_users + graph.num_items, 3)
    # Asked for before pruning, so that something is kept.
    before = full.mean_of_items(x), full.contains(user, item), full.layer_mean(stacked, 1)
    pruned = recommender(graph, 0.5).training_graph(full)
    dense = pruned[ITEM_TO_USER].to_dense()
    assert torch.equal(pruned.num_items_of_users, dense.sum(1).long())
    expected = dense @ x / dense.sum(1, keepdim=True).clamp(min=1)
    torch.testing.assert_close(pruned.mean_of_items(x), expected)
    assert torch.equal(pruned.contains(user, item), dense[user, item].bool())
    assert not torch.allclose(pruned.layer_mean(stacked, 1), before[2])
    after = full.mean_of_items(x), full.contains(user, item), full.layer_mean(stacked, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_derived_matrices_are_made_once(planted: Callable) -> None:
    csr = csr_of(planted())
    for name in ("symmetric", "num_items_of_users", "_items_of_users", "_similar", "_pairs"):
        assert getattr(csr, name) is getattr(csr, name)


def test_what_inference_mode_asked_for_serves_training(planted: Callable) -> None:
    graph = planted()
    csr = csr_of(graph)
    stacked = torch.randn(graph.num_users + graph.num_items, 3, requires_grad=True)

    def total() -> Tensor:
        users, items = stacked.split([graph.num_users, graph.num_items])
        parts = [csr.layer_mean(stacked, 1), csr.mean_of_items(items), csr.mean_of_users(users)]
        parts += [csr.smooth(items), users * csr.num_items_of_users.view(-1, 1)]
        return torch.cat(parts).sum()

    with torch.inference_mode():
        expected = total()
    total().backward()
    assert stacked.grad.isfinite().all()
    torch.testing.assert_close(total().detach(), expected.clone())


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


def test_csr_passes_through(planted: Callable) -> None:
    graph = planted()
    once = recommender(graph).csr_graph(graph.edge_index_dict)
    twice = recommender(graph).csr_graph(once)
    assert twice is once
    plain = recommender(graph).csr_graph(dict(once))
    assert all(plain[key] is once[key] for key in once)


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


def test_both_directions_are_pruned_alike_and_the_item_graph_is_not(planted: Callable) -> None:
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


def test_interactions_that_are_not_what_they_should_be_are_named(planted: Callable) -> None:
    graph = planted()
    model, edges = recommender(graph), graph.edge_index_dict
    with pytest.raises(ValueError, match="every interaction once"):
        twice = {key: torch.cat([adj, adj[:, :1]], dim=1) for key, adj in edges.items()}
        model.csr_graph(twice)
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


def test_what_belongs_to_some_users_follows_a_change_in_place(planted: Callable) -> None:
    csr, user = csr_of(planted()), torch.tensor([1, 4])
    dense = csr.items_of(None)[0].to_dense()
    torch.testing.assert_close(csr.items_of(user)[0].to_dense(), dense[[1, 4]])
    user.copy_(torch.tensor([2, 7]))
    adj, transposed = csr.items_of(user)
    torch.testing.assert_close(adj.to_dense(), dense[[2, 7]])
    torch.testing.assert_close(transposed.to_dense(), dense[[2, 7]].t())
