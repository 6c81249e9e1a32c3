from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch_geometric.nn import LGConv

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM, CSRGraph
from gtc_pyg.models import GraphRecommender
from tests.models.filters import filter_of, items_of, training_csr
from tests.models.graphs import csr_of, pairs, recommender, with_isolated_nodes


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
def test_means_sums_and_gradients_equal_the_dense_equations(
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


def test_what_belongs_to_some_users_follows_a_change_in_place(planted: Callable) -> None:
    csr, user = csr_of(planted()), torch.tensor([1, 4])
    dense = csr.items_of(None)[0].to_dense()
    torch.testing.assert_close(csr.items_of(user)[0].to_dense(), dense[[1, 4]])
    user.copy_(torch.tensor([2, 7]))
    adj, transposed = csr.items_of(user)
    torch.testing.assert_close(adj.to_dense(), dense[[2, 7]])
    torch.testing.assert_close(transposed.to_dense(), dense[[2, 7]].t())


def test_rows_of_all_come_from_the_history_in_training_only(
    planted: Callable,
) -> None:
    graph, module, user = planted(), torch.nn.Linear(1, 1), torch.tensor([1, 4])
    rows, made = torch.ones(2, 3, requires_grad=True), []

    def of(csr: CSRGraph, name: str = "image") -> torch.Tensor:
        make = lambda: made.append(name) or torch.zeros(graph.num_users, 3)  # noqa: E731
        return csr.rows_of_all(module, name, user, rows, make)

    csr, training = csr_of(graph), recommender(graph).training_graph(graph.edge_index_dict)
    assert (of(csr) == 0).all() and (of(csr) == 0).all() and len(made) == 2  # keeps nothing
    assert (of(training) == 0).all() and len(made) == 3  # its beginning
    out = of(training)
    assert len(made) == 3 and not out.requires_grad
    assert (out[user] == 1).all() and out.sum() == 6
    assert (of(training, "text") == 0).all() and len(made) == 4
    with torch.no_grad():
        assert (of(training) == 0).all()  # looking neither reads nor writes
    module.eval()
    assert (of(training) == 0).all() and len(made) == 6


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ([3, 3], r"'user' must be ascending and hold nobody twice \(got 3 after"),
        ([7, 0], r"'user' must be ascending and hold nobody twice \(got 0 after"),
        ([-1, 3], r"'user' holds user -1, expected 0 to 59"),
        ([3, 60], r"'user' holds user 60, expected 0 to 59"),
    ],
)
def test_users_out_of_order_are_refused(planted: Callable, user: list[int], message: str) -> None:
    graph = planted()
    with pytest.raises(ValueError, match=message):
        csr_of(graph).check_users(torch.tensor(user))
    with pytest.raises(ValueError, match=message):
        filter_of(graph)(graph.features, items_of(graph), training_csr(graph), torch.tensor(user))


def test_with_similar_adds_what_the_last_layer_gives(planted: Callable) -> None:
    graph = planted()
    csr, x = csr_of(graph), torch.randn(graph.num_items, 3)
    s = csr["item", "similar", "item"].to_dense()
    assert torch.equal(csr.with_similar(x, 0), x)
    torch.testing.assert_close(csr.with_similar(x, 2), x + s @ s @ x)


@pytest.mark.parametrize("moment", range(4))
def test_threads_that_ask_for_other_users_get_their_own(planted: Callable, moment: int) -> None:
    csr = csr_of(planted())
    first, second = torch.tensor([0, 3]), torch.tensor([1, 2])
    expected = csr.items_of(first)[0].to_dense()
    reads: list[str] = []

    class Interrupted(CSRGraph):  # another thread asks before one of the first one's reads
        def __getattribute__(self, name: str) -> object:
            if name == "_last":
                reads.append(name)
                if len(reads) == moment + 1:
                    CSRGraph._of(self, second)
            return super().__getattribute__(name)

    shared = Interrupted(csr)
    shared._last = csr._last
    assert torch.equal(shared.items_of(first)[0].to_dense(), expected)
