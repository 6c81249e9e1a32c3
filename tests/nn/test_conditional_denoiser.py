from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric import EdgeIndex

from gtc_pyg.nn import ConditionalDenoiser, NoiseSchedule

CONDITIONS = ["item", "neighbors", "user"]
# 5 users, 4 items; user 4 and item 3 are isolated.
EDGES = torch.tensor([[0, 0, 1, 2, 3, 3, 1], [0, 1, 1, 2, 2, 0, 0]])
WEIGHTS = torch.arange(1.0, 8.0) / 8
NUM_USERS, NUM_ITEMS, D, C, H = 5, 4, 6, 3, 5


def denoiser_of(condition: str = "user", aggr: str = "mean") -> ConditionalDenoiser:
    torch.manual_seed(0)
    return ConditionalDenoiser(D, C, H, condition, aggr)


def inputs() -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_user = torch.randn(NUM_USERS, C, generator=generator)
    x_item = torch.randn(NUM_ITEMS, C, generator=generator)
    x_t = torch.randn(NUM_ITEMS, D, generator=generator)
    return (x_user, x_item), x_t, torch.tensor([1, 100, 300, 600])


def users_of(item: int) -> list[int]:
    return [int(u) for u, i in EDGES.t() if i == item]


def is_dense(adj: Any) -> bool:
    return isinstance(adj, Tensor) and adj.layout == torch.strided


@pytest.mark.parametrize("condition", CONDITIONS)
def test_conditions_equal_a_loop_over_edges(condition: str) -> None:
    denoiser, ((x_user, x_item), x_t, t) = denoiser_of(condition), inputs()
    out = denoiser((x_user, x_item), EDGES, x_t, t)
    for i in range(NUM_ITEMS):
        users, cond, gate = users_of(i), x_item[i].clone(), torch.ones(H)
        if condition != "item":
            for u in users:
                cond += x_user[u] / len(users)
        if condition == "user" and users:
            gate = torch.zeros(H)
            for u in users:
                power = -(denoiser.lin_gate.weight @ x_user[u] + denoiser.lin_gate.bias)
                gate += 2 / (1 + power.exp()) / len(users)
        h = denoiser.hidden(x_t[i : i + 1], t[i : i + 1], cond.view(1, -1))[0]
        expected = denoiser.lin_out.weight @ (gate * h) + denoiser.lin_out.bias
        torch.testing.assert_close(out[i], expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("aggr", ["mean", "sum"])
def test_condition_and_gate_equal_their_sums_over_edges(
    to_adj: Callable[..., Any], aggr: str, weighted: bool
) -> None:
    denoiser, (x, _, _) = ConditionalDenoiser(D, C, H, aggr=aggr), inputs()
    weight = WEIGHTS if weighted else torch.ones(7)
    total = torch.zeros(NUM_ITEMS).index_add_(0, EDGES[1], weight)
    expected, gate, user_gate = x[1].clone(), torch.ones(NUM_ITEMS, H), denoiser.gate(x[0])
    for (u, i), a in zip(EDGES.t(), weight, strict=True):
        w = a / total[i] if aggr == "mean" else a
        expected[i] += w * x[0][u]
        gate[i] += w * (user_gate[u] - 1)
    adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS, weight)
    out = denoiser.encode_condition(x, adj, weight if is_dense(adj) else None)
    torch.testing.assert_close(tuple(out), (expected, gate, user_gate))
    if not weighted:
        plain = denoiser.encode_condition(x, to_adj(EDGES, NUM_USERS, NUM_ITEMS))
        torch.testing.assert_close(plain, out)


def test_a_mean_ignores_the_unit_and_edges_of_weight_zero() -> None:
    denoiser, (x, _, _) = denoiser_of(), inputs()
    expected = denoiser.encode_condition(x, EDGES, WEIGHTS)
    torch.testing.assert_close(denoiser.encode_condition(x, EDGES, 8 * WEIGHTS), expected)
    more, weight = torch.cat([EDGES, EDGES[:, :3]], dim=1), torch.cat([WEIGHTS, torch.zeros(3)])
    torch.testing.assert_close(denoiser.encode_condition(x, more, weight), expected)
    cond, gate, _ = denoiser.encode_condition(x, EDGES, torch.zeros(7))
    assert torch.equal(cond, x[1])
    assert torch.equal(gate, torch.ones(NUM_ITEMS, H))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("aggr", ["mean", "sum"])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_adjacency_forms_give_the_same(
    to_adj: Callable[..., Any], condition: str, aggr: str, weighted: bool
) -> None:
    denoiser, (x, x_t, t) = ConditionalDenoiser(D, C, H, condition, aggr), inputs()
    weight = WEIGHTS if weighted else None
    expected = denoiser(x, EDGES, x_t, t, weight)
    adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS, weight)
    out = denoiser(x, adj, x_t, t, weight if is_dense(adj) else None)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("condition", ["neighbors", "user"])
def test_adjacency_forms_give_the_same_gradient(to_adj: Callable[..., Any], condition: str) -> None:
    denoiser, ((x_user, x_item), x_t, t) = denoiser_of(condition), inputs()
    grads = []
    for adj in (EDGES, to_adj(EDGES, NUM_USERS, NUM_ITEMS)):
        x = x_user.clone().requires_grad_()
        denoiser((x, x_item), adj, x_t, t).pow(2).sum().backward()
        grads.append(x.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6)


def test_an_edge_index_that_knows_no_size_is_as_good() -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    one_item = torch.tensor([[0, 2], [0, 0]])
    out = denoiser(x, EdgeIndex(one_item), x_t, t)
    torch.testing.assert_close(out, denoiser(x, one_item, x_t, t))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_order_of_edges_does_not_matter(condition: str, weighted: bool) -> None:
    denoiser, (x, x_t, t) = denoiser_of(condition), inputs()
    order, weight = torch.tensor([3, 6, 0, 2, 5, 1, 4]), WEIGHTS if weighted else None
    out = denoiser(x, EDGES[:, order], x_t, t, WEIGHTS[order] if weighted else None)
    torch.testing.assert_close(out, denoiser(x, EDGES, x_t, t, weight))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_relabelled_nodes_give_relabelled_noise(condition: str) -> None:
    denoiser, ((x_user, x_item), x_t, t) = denoiser_of(condition), inputs()
    user, item = torch.tensor([2, 4, 0, 3, 1]), torch.tensor([3, 1, 0, 2])
    edges = torch.stack([user.argsort()[EDGES[0]], item.argsort()[EDGES[1]]])
    out = denoiser((x_user[user], x_item[item]), edges, x_t[item], t[item])
    torch.testing.assert_close(out, denoiser((x_user, x_item), EDGES, x_t, t)[item])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_items_without_users_see_themselves_alone(
    to_adj: Callable[..., Any], condition: str
) -> None:
    denoiser, (x, _, _) = denoiser_of(condition), inputs()
    cond, gate, _ = denoiser.encode_condition(x, to_adj(EDGES, NUM_USERS, NUM_ITEMS))
    assert torch.equal(cond[3], x[1][3])
    assert gate is None or torch.equal(gate[3], torch.ones(H))
    assert (gate is None) == (condition != "user")


def test_an_empty_graph_leaves_the_item_alone(to_adj: Callable[..., Any]) -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    out = denoiser(x, to_adj(EDGES[:, :0], NUM_USERS, NUM_ITEMS), x_t, t)
    torch.testing.assert_close(out, denoiser.noise(denoiser.hidden(x_t, t, x[1])))


def filter_edge_by_edge(
    denoiser: ConditionalDenoiser, schedule: NoiseSchedule
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Content of each edge's item, filtered for its user: ``[E, D]``; and what it was made of."""
    (x, x_t, _), t = inputs(), 300
    x, x_t = tuple(tensor.double() for tensor in x), x_t.double()
    h = denoiser.hidden(x_t, t, denoiser.encode_condition(x, EDGES)[0])
    gate, rows = denoiser.gate(x[0]), []
    signal, sigma = schedule.alpha_bar[t].sqrt(), (1 - schedule.alpha_bar[t]).sqrt()
    for u, i in EDGES.t():
        noise = denoiser.lin_out.weight @ (gate[u] * h[i]) + denoiser.lin_out.bias
        rows.append((x_t[i] - sigma * noise) / signal)
    return torch.stack(rows), x_t, h, gate, t


def test_what_a_users_items_say_equals_the_filter_edge_by_edge() -> None:
    denoiser, schedule = denoiser_of().double(), NoiseSchedule()
    x_hat, x_t, h, gate, t = filter_edge_by_edge(denoiser, schedule)
    to_user = torch.zeros(NUM_USERS, NUM_ITEMS, dtype=torch.double)
    to_user[EDGES[0], EDGES[1]] = WEIGHTS.double()
    to_user /= to_user.sum(dim=1, keepdim=True).clamp(min=1e-9)
    noise = denoiser.noise(to_user @ h, gate)
    out = schedule.predict_start(to_user @ x_t, t, noise)
    expected = torch.zeros(NUM_USERS, D, dtype=torch.double)
    expected.index_add_(0, EDGES[0], to_user[EDGES[0], EDGES[1]].view(-1, 1) * x_hat)
    torch.testing.assert_close(out[:4], expected[:4], rtol=0, atol=1e-10)


def test_the_mean_gate_of_an_item_equals_the_mean_over_its_users() -> None:
    denoiser, schedule = denoiser_of().double(), NoiseSchedule()
    x_hat, x_t, _, _, t = filter_edge_by_edge(denoiser, schedule)
    x = tuple(tensor.double() for tensor in inputs()[0])
    out = schedule.predict_start(x_t, t, denoiser(x, EDGES, x_t, t))
    for i in range(NUM_ITEMS - 1):
        expected = x_hat[EDGES[1] == i].mean(dim=0)
        torch.testing.assert_close(out[i], expected, rtol=0, atol=1e-10)


def test_users_with_different_gates_filter_an_item_differently() -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    h = denoiser.hidden(x_t, t, x[1])
    one, other = (denoiser.noise(h, denoiser.gate(x[0])[u]) for u in (0, 1))
    assert (one - other).abs().max() > 1e-2


@pytest.mark.parametrize("condition", CONDITIONS)
def test_only_conditions_that_name_users_depend_on_them(condition: str) -> None:
    denoiser, ((x_user, x_item), x_t, t) = denoiser_of(condition), inputs()
    change = denoiser((-x_user, x_item), EDGES, x_t, t) - denoiser((x_user, x_item), EDGES, x_t, t)
    assert (change.abs().amax(dim=1) > 1e-3).tolist() == [condition != "item"] * 3 + [False]


def test_one_time_equals_that_time_for_every_row() -> None:
    denoiser, (x, x_t, _) = denoiser_of(), inputs()
    expected = denoiser(x, EDGES, x_t, torch.full((NUM_ITEMS,), 17))
    torch.testing.assert_close(denoiser(x, EDGES, x_t, 17), expected)


@pytest.mark.parametrize("channels", [1, 5, 6])
def test_times_have_different_features(channels: int) -> None:
    denoiser = ConditionalDenoiser(channels, C)
    features = denoiser.time_features(torch.arange(600), torch.zeros(600, channels))
    assert features.shape == (600, channels)
    assert features.abs().max() <= 1
    assert torch.cdist(features[:1], features[1:]).min() > 0


@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_parameter_receives_a_gradient(condition: str) -> None:
    denoiser, (x, x_t, t) = denoiser_of(condition), inputs()
    denoiser(x, EDGES, x_t, t).pow(2).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in denoiser.parameters())


@pytest.mark.parametrize("condition", CONDITIONS)
def test_gradients(condition: str) -> None:
    denoiser, ((x_user, x_item), x_t, t) = denoiser_of(condition).double(), inputs()
    tensors = [x.double().requires_grad_() for x in (x_user, x_item, x_t)]
    assert torch.autograd.gradcheck(lambda u, i, x: denoiser((u, i), EDGES, x, t), tensors)


def test_noise_of_a_known_item_is_learned() -> None:
    denoiser, (x, x_0, _) = denoiser_of(), inputs()
    schedule, generator = NoiseSchedule(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=0.02)
    errors = []
    for _ in range(150):
        t, noise = schedule.sample_times(4, generator), schedule.sample_noise(x_0, generator)
        error = (denoiser(x, EDGES, schedule.add_noise(x_0, t, noise), t) - noise).pow(2).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert sum(errors[-30:]) < 0.7 * sum(errors[:30])


@pytest.mark.parametrize("condition", CONDITIONS)
def test_forward_changes_nothing(
    condition: str, to_adj: Callable[..., Any], unchanged: Callable
) -> None:
    denoiser, (x, x_t, t) = denoiser_of(condition), inputs()
    edges = EDGES.clone()
    with unchanged(denoiser, x, x_t, t, edges):
        denoiser(x, to_adj(edges, NUM_USERS, NUM_ITEMS), x_t, t)


@pytest.mark.parametrize("dtype", [torch.double, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float, torch.double, torch.long])
def test_weights_are_cast_to_the_embeddings(
    to_adj: Callable[..., Any], dtype: torch.dtype, stored: torch.dtype
) -> None:
    denoiser, (x, x_t, t) = denoiser_of().to(dtype), inputs()
    x, x_t, weight = tuple(tensor.to(dtype) for tensor in x), x_t.to(dtype), WEIGHTS.mul(8)
    expected = denoiser(x, EDGES, x_t, t, weight.to(dtype))
    adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS, weight.to(stored))
    out = denoiser(x, adj, x_t, t, weight.to(stored) if is_dense(adj) else None)
    assert out.dtype == dtype
    torch.testing.assert_close(out, expected)


def test_half_precision_counts_all_users() -> None:
    # bfloat16 has eight bits: 256 + 1 = 256.
    denoiser = ConditionalDenoiser(D, C, H).to(torch.bfloat16)
    x_user = torch.tensor([2.0] * 400 + [0.0] * 400, dtype=torch.bfloat16).view(-1, 1).expand(-1, C)
    edges = torch.stack([torch.arange(800), torch.zeros(800, dtype=torch.long)])
    x_item = torch.zeros(1, C, dtype=torch.bfloat16)
    cond, _, _ = denoiser.encode_condition((x_user, x_item), edges)
    assert torch.equal(cond, torch.ones_like(cond))


def test_times_differ_in_half_precision_too() -> None:
    denoiser = ConditionalDenoiser(64, C)
    t = torch.tensor([598, 599, 600])
    half = denoiser.time_features(t, torch.zeros(3, 64, dtype=torch.bfloat16))
    full = denoiser.time_features(t, torch.zeros(3, 64, dtype=torch.double))
    torch.testing.assert_close(half.double(), full, rtol=0, atol=5e-3)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'condition' must be one of .* \(got 'users'\)"):
        ConditionalDenoiser(D, C, condition="users")
    with pytest.raises(ValueError, match=r"'aggr' must be 'mean' or 'sum' \(got 'max'\)"):
        ConditionalDenoiser(D, C, aggr="max")
    with pytest.raises(ValueError, match="condition 'neighbors' has no gate; only 'user' has"):
        denoiser_of("neighbors").gate(inputs()[0][0])


def test_shapes_that_do_not_fit_are_named() -> None:
    model, users, items = ConditionalDenoiser(4, 3), torch.randn(2, 3), torch.randn(5, 3)
    edge_index, x_t = torch.tensor([[0, 1], [0, 4]]), torch.randn(5, 4)
    with pytest.raises(ValueError, match="'x' must be a tuple of user and item"):
        model(items, edge_index, x_t, 1)
    with pytest.raises(ValueError, match=r"'x_t' must be \[5, 4\].*got \[5, 3\]"):
        model((users, items), edge_index, x_t[:, :3], 1)
    with pytest.raises(ValueError, match=r"'t' must be one time or 5 \(got 2\)"):
        model((users, items), edge_index, x_t, torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"'x' must hold user embeddings \[N, 3\] \(got \[2, 4\]"):
        model((torch.randn(2, 4), items), edge_index, x_t, 1)
    with pytest.raises(ValueError, match=r"'x' must hold item embeddings \[N, 3\] \(got \[5\]"):
        model((users, items[:, 0]), edge_index, x_t, 1)
    with pytest.raises(ValueError, match=r"'edge_index' must be \[2, E\] .*int64 \[3, 2\]"):
        model((users, items), torch.zeros(3, 2, dtype=torch.long), x_t, 1)
    with pytest.raises(ValueError, match=r"'edge_weight' must hold 2.*got 1\)"):
        model((users, items), edge_index, x_t, 1, torch.ones(1))


@pytest.mark.parametrize(("name", "row", "num"), [("user", 0, NUM_USERS), ("item", 1, NUM_ITEMS)])
@pytest.mark.parametrize("past", [True, False])
def test_an_id_without_an_embedding_is_named(name: str, row: int, num: int, past: bool) -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    edges, bad = EDGES.clone(), num if past else -1
    edges[row, 3] = bad
    for adj in (edges, EdgeIndex(edges)):
        with pytest.raises(ValueError, match=f"holds {name} {bad}, expected 0 to {num - 1}"):
            denoiser(x, adj, x_t, t)


def test_a_sparse_matrix_that_reads_past_the_users_is_refused() -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    rowptr, col = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([0, 5, 1])
    adj = torch.sparse_csr_tensor(rowptr, col, torch.ones(3), size=(NUM_ITEMS, NUM_USERS))
    with pytest.raises(ValueError, match="'edge_index' holds user 5, expected 0 to 4"):
        denoiser(x, adj, x_t, t)


def test_a_sparse_matrix_must_be_transposed(
    to_adj: Callable[..., Any],
) -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    adj = to_adj(EDGES.flip(0), NUM_ITEMS, NUM_USERS)
    if not is_dense(adj):
        with pytest.raises(ValueError, match=r"'edge_index' must be transposed.*got \[5, 4\]"):
            denoiser(x, adj, x_t, t)
        adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS)
        with pytest.raises(ValueError, match="'edge_weight' goes with an edge_index"):
            denoiser(x, adj, x_t, t, WEIGHTS)


def test_negative_weights_are_refused_where_their_sum_divides(to_adj: Callable[..., Any]) -> None:
    (x, x_t, t), weights = inputs(), WEIGHTS.clone()
    weights[1] = -0.5
    adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS, weights)
    given = weights if is_dense(adj) else None
    summed = denoiser_of(aggr="sum")(x, adj, x_t, t, given)
    assert summed.isfinite().all()
    with pytest.raises(ValueError, match=r"'edge_weight' must be 0 or more .*\(got -0.5\)"):
        denoiser_of()(x, adj, x_t, t, given)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (0.5, r"'t' must hold whole numbers.*float32"),
        (torch.full((NUM_ITEMS,), 0.1), r"'t' must hold whole numbers"),
        (torch.tensor(True), r"'t' must hold whole numbers.*bool"),
        (-1, r"'t' must be at least 0 \(got -1\)"),
        (torch.tensor([3, 2]), rf"'t' must be one time or {NUM_ITEMS} \(got 2\)"),
    ],
)
def test_a_time_that_is_no_step_is_named(t: Any, message: str) -> None:
    x, x_t, _ = inputs()
    with pytest.raises(ValueError, match=message):
        denoiser_of()(x, EDGES, x_t, t)


@pytest.mark.parametrize("name", ["channels", "cond_channels", "hidden_channels"])
def test_sizes_of_zero_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' must be at least 1 \(got 0\)"):
        ConditionalDenoiser(**({"channels": 4, "cond_channels": 3} | {name: 0}))


@pytest.mark.parametrize("condition", ["item", "neighbors", "user"])
def test_integers_of_any_width_are_the_same_edges(condition: str) -> None:
    denoiser, x = (
        ConditionalDenoiser(4, 3, condition=condition),
        (torch.ones(2, 3), torch.ones(3, 3)),
    )
    edges = torch.tensor([[0, 1, 1], [1, 2, 0]])
    expected = denoiser(x, edges, torch.ones(3, 4), 5)
    for dtype in (torch.int32, torch.int16, torch.uint8):
        assert torch.equal(denoiser(x, edges.to(dtype), torch.ones(3, 4), 5), expected)


def test_what_is_no_adjacency_is_named() -> None:
    denoiser, x = ConditionalDenoiser(4, 3), (torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ValueError, match=r"'edge_index' must be a tensor .* \(got dict\)"):
        denoiser(x, {("user", "rates", "item"): torch.ones(2, 1).long()}, torch.ones(3, 4), 5)


class Doubled(ConditionalDenoiser):
    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        return 2 * super().message(x_j, edge_weight)


class Fused(Doubled):
    def message_and_aggregate(self, adj_t: Any, x: Any, transposed: Any, rows: Any) -> Tensor:
        return 3 * super().message_and_aggregate(adj_t, x, transposed, rows)


@pytest.mark.parametrize("condition", ["neighbors", "user"])
def test_a_subclass_sends_its_own_messages(to_adj: Callable[..., Any], condition: str) -> None:
    denoiser, (x, _, _) = Doubled(D, C, H, condition, "sum"), inputs()
    adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS, WEIGHTS)
    out = denoiser.encode_condition(x, adj, WEIGHTS if is_dense(adj) else None)
    plain = ConditionalDenoiser(D, C, H, condition, "sum")
    plain.load_state_dict(denoiser.state_dict())
    expected = plain.encode_condition(x, EDGES, 2 * WEIGHTS)
    torch.testing.assert_close(tuple(out), tuple(expected))
    fused = Fused(D, C, H, condition, "sum")
    fused.load_state_dict(denoiser.state_dict())
    if not is_dense(adj):
        expected = plain.encode_condition(x, EDGES, 3 * WEIGHTS)
        torch.testing.assert_close(tuple(fused.encode_condition(x, adj)), tuple(expected))
