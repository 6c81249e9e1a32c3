from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gtc_pyg.nn import ConditionalDenoiser, NoiseSchedule

CONDITIONS = ["item", "neighbors", "user"]
# 5 users, 4 items; user 4 and item 3 are isolated.
EDGES = torch.tensor([[0, 0, 1, 2, 3, 3, 1], [0, 1, 1, 2, 2, 0, 0]])
NUM_USERS, NUM_ITEMS, D, C, H = 5, 4, 6, 3, 5


def denoiser_of(condition: str = "user") -> ConditionalDenoiser:
    torch.manual_seed(0)
    return ConditionalDenoiser(D, C, H, condition)


def inputs() -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_user = torch.randn(NUM_USERS, C, generator=generator)
    x_item = torch.randn(NUM_ITEMS, C, generator=generator)
    x_t = torch.randn(NUM_ITEMS, D, generator=generator)
    return (x_user, x_item), x_t, torch.tensor([1, 100, 300, 600])


def users_of(item: int) -> list[int]:
    return [int(u) for u, i in EDGES.t() if i == item]


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


@pytest.mark.parametrize("condition", ["neighbors", "user"])
def test_edge_weights_scale_what_users_say(condition: str) -> None:
    denoiser, (x, _, _) = ConditionalDenoiser(D, C, H, condition, aggr="sum"), inputs()
    weight = torch.arange(1.0, 8.0) / 8
    cond, _ = denoiser.encode_condition(x, EDGES, weight)
    expected = x[1].clone()
    for (u, i), w in zip(EDGES.t(), weight, strict=True):
        expected[i] += w * x[0][u]
    torch.testing.assert_close(cond, expected)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_adjacency_forms_give_the_same(
    to_adj: Callable[..., Any], condition: str, weighted: bool
) -> None:
    denoiser, (x, x_t, t) = denoiser_of(condition), inputs()
    weight = torch.arange(1.0, 8.0) / 8 if weighted else None
    expected = denoiser(x, EDGES, x_t, t, weight)
    adj = to_adj(EDGES, NUM_USERS, NUM_ITEMS, weight)
    dense = isinstance(adj, Tensor) and adj.layout == torch.strided
    out = denoiser(x, adj, x_t, t, weight if dense else None)
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


@pytest.mark.parametrize("condition", CONDITIONS)
def test_order_of_edges_does_not_matter(condition: str) -> None:
    denoiser, (x, x_t, t) = denoiser_of(condition), inputs()
    out = denoiser(x, EDGES[:, torch.tensor([3, 6, 0, 2, 5, 1, 4])], x_t, t)
    torch.testing.assert_close(out, denoiser(x, EDGES, x_t, t))


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
    cond, gate = denoiser.encode_condition(x, to_adj(EDGES, NUM_USERS, NUM_ITEMS))
    assert torch.equal(cond[3], x[1][3])
    assert gate is None or torch.equal(gate[3], torch.ones(H))
    assert (gate is None) == (condition != "user")


def test_an_empty_graph_leaves_the_item_alone(to_adj: Callable[..., Any]) -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    out = denoiser(x, to_adj(EDGES[:, :0], NUM_USERS, NUM_ITEMS), x_t, t)
    torch.testing.assert_close(out, denoiser.noise(denoiser.hidden(x_t, t, x[1])))


def test_the_factorised_mean_equals_the_filter_edge_by_edge() -> None:
    denoiser, (x, x_t, t) = denoiser_of().double(), inputs()
    x, x_t = tuple(tensor.double() for tensor in x), x_t.double()
    h = denoiser.hidden(x_t, t, denoiser.encode_condition(x, EDGES)[0])
    gate = denoiser.gate(x[0])
    for u in range(NUM_USERS - 1):
        items = [int(i) for v, i in EDGES.t() if v == u]
        pairs = [denoiser.lin_out(gate[u] * h[i]) for i in items]
        mean = denoiser.noise(h[items].mean(dim=0), gate[u])
        torch.testing.assert_close(mean, torch.stack(pairs).mean(dim=0))


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


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_noise(way: str) -> None:
    denoiser, (x, x_t, t) = denoiser_of(), inputs()
    if way == "state_dict":
        copied = ConditionalDenoiser(D, C, H)
        copied.load_state_dict(denoiser.state_dict())
    elif way == "deepcopy":
        copied = copy.deepcopy(denoiser)
    else:
        copied = pickle.loads(pickle.dumps(denoiser))
    assert torch.equal(copied(x, EDGES, x_t, t), denoiser(x, EDGES, x_t, t))


def test_reset_draws_all_weights_from_the_seed() -> None:
    denoiser, draws = denoiser_of(), []
    for start in (0.0, 1.0):
        for parameter in denoiser.parameters():
            torch.nn.init.constant_(parameter, start)
        torch.manual_seed(0)
        denoiser.reset_parameters()
        draws.append(torch.cat([p.detach().flatten() for p in denoiser.parameters()]))
    assert torch.equal(*draws)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'condition' must be one of .* \(got 'users'\)"):
        ConditionalDenoiser(D, C, condition="users")
    with pytest.raises(ValueError, match="condition 'neighbors' has no gate; only 'user' has"):
        denoiser_of("neighbors").gate(inputs()[0][0])


def test_shapes_that_do_not_fit_are_named() -> None:
    model, users, items = ConditionalDenoiser(4, 3), torch.randn(2, 3), torch.randn(5, 3)
    edge_index, x_t = torch.tensor([[0, 1], [0, 4]]), torch.randn(5, 4)
    with pytest.raises(ValueError, match="'x' must be a pair"):
        model(items, edge_index, x_t, 1)
    with pytest.raises(ValueError, match=r"'x_t' must be \[5, 4\].*got \[5, 3\]"):
        model((users, items), edge_index, x_t[:, :3], 1)
    with pytest.raises(ValueError, match=r"'t' must be one time or 5 \(got 2\)"):
        model((users, items), edge_index, x_t, torch.tensor([1, 2]))
