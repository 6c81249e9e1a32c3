from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch_geometric.nn import LGConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from gtc_pyg.functional import (
    degree_sensitive_sample,
    layer_mean,
    select_columns,
    select_rows,
    spmm,
    spmm_learning,
    stack_interactions,
    to_csr,
)

# Graphs: 5 users, 4 items; user 4 and item 3 are isolated.
EDGES = torch.tensor([[0, 0, 1, 2, 3, 3], [0, 1, 1, 2, 2, 0]])
NUM_USERS, NUM_ITEMS = 5, 4


def dense_interactions() -> Tensor:
    out = torch.zeros(NUM_USERS, NUM_ITEMS)
    out[EDGES[0], EDGES[1]] = 1
    return out


def interactions() -> tuple[Tensor, Tensor]:
    to_item = to_csr(EDGES, NUM_ITEMS, NUM_USERS)
    return to_item, to_csr(EDGES.flip(0), NUM_USERS, NUM_ITEMS)


def stacked_edge_index() -> Tensor:
    user, item = EDGES[0], EDGES[1] + NUM_USERS
    return torch.cat([torch.stack([user, item]), torch.stack([item, user])], dim=1)


@pytest.mark.parametrize("weighted", [False, True])
def test_adjacency_forms_are_one_matrix(to_adj: Callable[..., Any], weighted: bool) -> None:
    weight = torch.arange(1.0, 7.0) if weighted else None
    expected = torch.zeros(NUM_ITEMS, NUM_USERS)
    expected[EDGES[1], EDGES[0]] = torch.ones(6) if weight is None else weight
    csr = to_csr(to_adj(EDGES, NUM_USERS, NUM_ITEMS, weight), NUM_ITEMS, NUM_USERS, weight)
    assert csr.layout == torch.sparse_csr
    torch.testing.assert_close(csr.to_dense(), expected)


def test_the_wrong_orientation_raises(to_adj: Callable[..., Any]) -> None:
    edges = torch.cat([EDGES, torch.tensor([[4], [0]])], dim=1).flip(0)
    adj = to_adj(edges, NUM_ITEMS, NUM_USERS)
    with pytest.raises(ValueError, match=r"'adj' (must be transposed|holds destination 4)"):
        to_csr(adj, NUM_ITEMS, NUM_USERS)


@pytest.mark.parametrize("edge", [(-1, 0), (5, 0), (0, -1), (0, 4)])
def test_ids_out_of_range_are_named(edge: tuple[int, int]) -> None:
    edges = torch.cat([EDGES, torch.tensor(edge).view(2, 1)], dim=1)
    wrong = min(edge) if min(edge) < 0 else max(edge)
    with pytest.raises(ValueError, match=rf"'adj' holds (source|destination) {wrong}, expected"):
        to_csr(edges, NUM_ITEMS, NUM_USERS)


def test_an_empty_graph_is_an_empty_matrix(to_adj: Callable[..., Any]) -> None:
    csr = to_csr(to_adj(EDGES[:, :0], NUM_USERS, NUM_ITEMS), NUM_ITEMS, NUM_USERS)
    assert csr.shape == (NUM_ITEMS, NUM_USERS)
    assert csr.values().numel() == 0


def test_the_stacked_graph_is_normalised_like_a_dense_matrix() -> None:
    r = dense_interactions()
    square = torch.zeros(NUM_USERS + NUM_ITEMS, NUM_USERS + NUM_ITEMS)
    square[:NUM_USERS, NUM_USERS:] = r
    square[NUM_USERS:, :NUM_USERS] = r.t()
    scale = square.sum(1).pow(-0.5).nan_to_num(posinf=0)
    expected = scale.view(-1, 1) * square * scale
    torch.testing.assert_close(stack_interactions(*interactions()).to_dense(), expected)


def test_the_stacked_graph_equals_gcn_norm() -> None:
    edge_index, weight = gcn_norm(
        stacked_edge_index(), num_nodes=NUM_USERS + NUM_ITEMS, add_self_loops=False
    )
    expected = torch.zeros(NUM_USERS + NUM_ITEMS, NUM_USERS + NUM_ITEMS)
    expected[edge_index[1], edge_index[0]] = weight
    torch.testing.assert_close(stack_interactions(*interactions()).to_dense(), expected)


def test_the_stacked_graph_propagates_like_lgconv() -> None:
    x = torch.randn(NUM_USERS + NUM_ITEMS, 3, generator=torch.Generator().manual_seed(0))
    out = stack_interactions(*interactions()) @ x
    torch.testing.assert_close(out, LGConv()(x, stacked_edge_index()))


def test_isolated_nodes_have_empty_rows_and_no_nan() -> None:
    out = stack_interactions(*interactions()).to_dense()
    assert out.isfinite().all()
    assert (out[[4, NUM_USERS + 3]] == 0).all()


def test_spmm_and_its_gradient_equal_autograd() -> None:
    to_item, to_user = interactions()
    x = torch.randn(NUM_USERS, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weight = torch.randn(NUM_ITEMS, 3, generator=torch.Generator().manual_seed(1))
    out, expected = spmm(to_item, to_user, x), torch.sparse.mm(to_item, x)
    grads = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close((out, grads[0]), (expected, grads[1]))


@pytest.mark.parametrize("rows", [[], [3], [0, 2, 4], list(range(NUM_USERS))])
def test_rows_that_learn_get_their_gradient_of_the_whole_product(rows: list[int]) -> None:
    to_item, to_user = interactions()
    x = torch.randn(NUM_USERS, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    some = x.detach()[rows].requires_grad_()
    picked = select_rows(to_user, torch.tensor(rows, dtype=torch.long))
    out, expected = spmm_learning(to_item, x, some, picked), spmm(to_item, to_user, x)
    assert torch.equal(out, expected)
    grads = [torch.autograd.grad(y.pow(3).sum(), z)[0] for y, z in ((out, some), (expected, x))]
    torch.testing.assert_close(grads[0], grads[1][rows])


def test_spmm_passes_gradcheck_twice() -> None:
    to_item, to_user = (x.double() for x in interactions())
    x = torch.randn(NUM_USERS, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: spmm(to_item, to_user, x), x)
    assert torch.autograd.gradgradcheck(lambda x: spmm(to_item, to_user, x.square()), x)


def test_spmm_does_not_read_what_memory_held_before() -> None:
    to_item, to_user = interactions()
    for _ in range(20):
        del_me = torch.full((NUM_ITEMS, 3), float("nan"))
        del del_me
        out = spmm(to_item, to_user, torch.ones(NUM_USERS, 3))
        torch.testing.assert_close(out, dense_interactions().t() @ torch.ones(NUM_USERS, 3))


@pytest.mark.parametrize("rows", [[], [4], [0, 2, 4], list(range(NUM_USERS))])
def test_selected_rows_are_those_of_the_dense_matrix(rows: list[int]) -> None:
    _, to_user = interactions()
    values = torch.rand(to_user.values().numel(), generator=torch.Generator().manual_seed(0))
    crow, col = to_user.crow_indices(), to_user.col_indices()
    adj = torch.sparse_csr_tensor(crow, col, values, size=to_user.shape)
    dense = adj.to_dense()
    rows_t = dense.t().to_sparse_csr()
    chosen = torch.tensor(rows, dtype=torch.long)
    picked, picked_t = select_rows(adj, chosen), select_columns(rows_t, chosen)
    assert torch.equal(picked.to_dense(), dense[rows])
    assert torch.equal(picked_t.to_dense(), dense[rows].t())
    x = torch.randn(NUM_ITEMS, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    out = spmm(picked, picked_t, x)
    torch.testing.assert_close(out, dense[rows] @ x)
    grad = torch.autograd.grad(out.square().sum(), x)[0]
    expected = torch.autograd.grad((dense[rows] @ x).square().sum(), x)[0]
    torch.testing.assert_close(grad, expected)


@pytest.mark.parametrize("num_layers", [0, 1, 2, 4])
def test_layer_mean_equals_a_mean_of_matrix_powers(num_layers: int) -> None:
    adj = stack_interactions(*interactions())
    x = torch.randn(NUM_USERS + NUM_ITEMS, 3, requires_grad=True)
    powers = [torch.matrix_power(adj.to_dense(), layer) @ x for layer in range(num_layers + 1)]
    out, expected = layer_mean(adj, adj, x, num_layers), sum(powers) / (num_layers + 1)
    weight = torch.randn_like(x)
    grads = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close((out, grads[0]), (expected, grads[1]))
    expanded = [torch.autograd.grad(layer_mean(adj, adj, x, num_layers).sum(), x)[0]]
    torch.testing.assert_close(expanded[0], layer_mean(adj, adj, torch.ones_like(x), num_layers))


def test_layer_mean_passes_gradcheck_twice() -> None:
    adj = stack_interactions(*interactions()).double()
    x = torch.randn(NUM_USERS + NUM_ITEMS, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer_mean(adj, adj, x, 2), x)
    assert torch.autograd.gradgradcheck(lambda x: layer_mean(adj, adj, x.square(), 2), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sparse_products_of_half_precision_are_summed_in_floats(dtype: torch.dtype) -> None:
    adj = stack_interactions(*interactions())
    x = torch.randn(NUM_USERS + NUM_ITEMS, 3).to(dtype)
    for out, expected in (
        (spmm(adj, adj, x), spmm(adj, adj, x.float())),
        (layer_mean(adj, adj, x, 3), layer_mean(adj, adj, x.float(), 3)),
    ):
        assert torch.equal(out, expected.to(dtype))


@pytest.mark.parametrize("num_samples", [1, 4, 6])
def test_a_sample_has_the_right_number_of_different_edges(num_samples: int) -> None:
    kept = degree_sensitive_sample(EDGES, NUM_USERS, NUM_ITEMS, num_samples)
    assert kept.numel() == kept.unique().numel() == num_samples
    assert kept.tolist() == sorted(kept.tolist())
    assert 0 <= kept.min() <= kept.max() < EDGES.size(1)


def test_edges_are_kept_in_proportion_to_their_degrees() -> None:
    # A hub (user 0, all of 20 items) beside users of one item each, so weights span 1 to 6.3.
    hub = torch.stack([torch.zeros(20, dtype=torch.long), torch.arange(20)])
    edges = torch.cat([hub, torch.tensor([[1, 2, 3], [0, 0, 1]]), torch.tensor([[4], [20]])], dim=1)
    degree_user, degree_item = torch.bincount(edges[0]), torch.bincount(edges[1])
    weight = (degree_user[edges[0]] * degree_item[edges[1]]).double().rsqrt()
    generator = torch.Generator().manual_seed(0)
    draws = 20_000
    first = [degree_sensitive_sample(edges, 5, 21, 1, generator) for _ in range(draws)]
    count = torch.bincount(torch.cat(first), minlength=edges.size(1))
    expected = draws * weight / weight.sum()
    assert stats.chisquare(count.numpy(), expected.numpy()).pvalue > 1e-3


def test_a_generator_decides_the_sample() -> None:
    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return degree_sensitive_sample(EDGES, NUM_USERS, NUM_ITEMS, 3, generator).tolist()

    state = torch.get_rng_state()
    assert draw(0) == draw(0)
    assert len({tuple(draw(seed)) for seed in range(20)}) > 5
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_layer_mean_takes_a_matrix_that_is_not_symmetric(num_layers: int) -> None:
    dense = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)).relu_()
    dense[dense < 0.5] = 0
    adj, adj_t = dense.to_sparse_csr(), dense.t().to_sparse_csr()
    x = torch.randn(6, 3, requires_grad=True)
    powers = [torch.matrix_power(dense, layer) @ x for layer in range(num_layers + 1)]
    outs = layer_mean(adj, adj_t, x, num_layers), sum(powers) / (num_layers + 1)
    weight = torch.randn_like(x)
    grads = [torch.autograd.grad((out * weight).sum(), x)[0] for out in outs]
    torch.testing.assert_close((outs[0], grads[0]), (outs[1], grads[1]))


def test_a_negative_number_of_layers_is_named() -> None:
    with pytest.raises(ValueError, match=r"'num_layers' must be at least 0 \(got -1\)"):
        layer_mean(*[stack_interactions(*interactions())] * 2, torch.ones(9, 2), -1)
