from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.models import ContentFilter, GraphRecommender
from gtc_pyg.models.gtc.filtered_content import gated
from tests.models.filters import (
    CONDITIONS,
    filter_of,
    items_of,
    run,
    training_csr,
    weights_of,
)
from tests.models.graphs import seeded, twins, with_edges, without_some_images


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("num_sampling_steps", [1, 4])
def test_it_equals_the_denoising_steps_one_by_one(
    planted: Callable, condition: str, num_sampling_steps: int
) -> None:
    graph = planted()
    steps = {"start_step": 90, "num_sampling_steps": num_sampling_steps}
    model = filter_of(graph, condition=condition, hidden_channels=5, **steps)
    item, edges = F.layer_norm(items_of(graph), (8,)), graph.edge_index_dict[USER_TO_ITEM]
    mean = 1 / torch.bincount(edges[1], minlength=graph.num_items)[edges[1]]
    for name, out in run(model, graph)[0].items():
        x = model.encoders[name](graph.features[name])
        x_t = model.sampler.schedule.alpha_bar[90].float().sqrt() * x
        times = {1: [90, 0], 4: [90, 68, 45, 22, 0]}[num_sampling_steps]
        for t, t_next in pairwise(times):
            user = torch.randn(graph.num_users, 8) if condition == "item" else out.user
            noise = model.denoisers[name]((user, item), edges, x_t, t, mean)
            x_t = model.sampler.schedule.step(x_t, t, t_next, noise)
        torch.testing.assert_close(out.x, x)
        torch.testing.assert_close(out.x_hat, x_t, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_without_denoising_steps_content_stays_as_it_is(planted: Callable, condition: str) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition, hidden_channels=5, num_sampling_steps=0)
    user, item = torch.arange(graph.num_users), torch.arange(graph.num_items)
    for name, out in run(model, graph)[0].items():
        x = model.encoders[name](graph.features[name])
        torch.testing.assert_close(out.x_hat, x)
        pairs = out.for_pairs(user.view(-1, 1), item)
        torch.testing.assert_close(pairs, x.expand_as(pairs))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_some_users_alone_give_the_same_as_all(
    planted: Callable, batch_of: Callable, condition: str
) -> None:
    graph = planted()
    model, csr, item_emb = (
        filter_of(graph, condition=condition),
        training_csr(graph),
        items_of(graph),
    )
    user, pos, neg = (ids[:90] for ids in batch_of(graph))
    some, row = user.unique(return_inverse=True)
    assert 10 < some.numel() < graph.num_users
    found = []
    for asked, at in ((None, user), (some, row)):
        model.zero_grad()
        filtered = model(graph.features, item_emb, csr, asked)
        content, triples = model.mean_content(filtered, csr), (at, pos, neg)
        losses = [
            model.ranking_loss(filtered, content, graph.features, csr, *triples),
            model.diffusion_loss(filtered, graph.features, at, pos, seeded()),
        ]
        mine = slice(None) if asked is not None else some
        weights = weights_of(filtered)[mine]
        rows = [x[mine] for x in content.values()]
        pairs = [out.for_pairs(at, pos) for name, out in filtered.items()]
        total = sum(losses) + sum((x * x).sum() for x in [weights, *rows, *pairs])
        total.backward()
        # Users learn from their messages to items, too, which the next test looks at.
        of_users = {id(p) for p in (*model.views.parameters(), *gates_of(model))}
        learns = [p for p in model.parameters() if id(p) not in of_users]
        grads = [p.grad for p in learns if p.grad is not None]
        found.append([*losses, weights, *rows, *pairs, *grads])
    assert len(found[0]) == len(found[1]) > 20
    for every, few in zip(*found, strict=True):
        torch.testing.assert_close(few, every, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_item_teaches_the_users_that_were_asked_for(planted: Callable, condition: str) -> None:
    graph = planted()
    model, csr, item_emb = (
        filter_of(graph, condition=condition),
        training_csr(graph),
        items_of(graph),
    )
    users = torch.arange(graph.num_users)
    grads = []
    for asked in (None, users, users[::3], users[1::3], users[2::3]):
        model.zero_grad()
        filtered = model(graph.features, item_emb, csr, asked)
        torch.stack([out.x_hat.pow(3).sum() for out in filtered.values()]).sum().backward()
        of_views = [p.grad for p in (*model.views.parameters(), *gates_of(model))]
        if condition == "item":
            assert not of_views  # nobody is looked at
            return
        grads.append([g if g is not None else torch.zeros(()) for g in of_views])
    every, all_asked, *thirds = grads
    assert all(grad.abs().sum() > 0 for grad in every[: -len(gates_of(model)) or None])
    for whole, named, *parts in zip(every, all_asked, *thirds, strict=True):
        torch.testing.assert_close(named, whole, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(torch.stack(parts).sum(0), whole, rtol=1e-4, atol=1e-4)


def test_users_learn_from_what_is_filtered_for_them(planted: Callable) -> None:
    graph = planted()
    model, csr, item_emb = filter_of(graph), training_csr(graph), items_of(graph)
    user = torch.tensor([0, 7, 59])
    grads = []
    for asked, mine in ((None, user), (user, slice(None))):
        model.zero_grad()
        filtered = model(graph.features, item_emb, csr, asked)
        filtered = {name: f._replace(h=f.h.detach()) for name, f in filtered.items()}
        content = model.mean_content(filtered, csr)
        torch.stack([x[mine].pow(3).sum() for x in content.values()]).sum().backward()
        grads.append([p.grad for p in (*model.views.parameters(), *gates_of(model))])
    for every, some in zip(*grads, strict=True):
        assert every.abs().sum() > 0
        torch.testing.assert_close(some, every, rtol=1e-4, atol=1e-5)


def gates_of(model: ContentFilter) -> list[torch.nn.Parameter]:
    r"""Weights of the gates, of a filter that has any."""
    lins = [denoiser.lin_gate for denoiser in model.denoisers.values()]
    return [p for lin in lins if lin is not None for p in lin.parameters()]


def test_one_gate_for_all_users_gives_the_items_own_filter(planted: Callable) -> None:
    graph = planted()
    model = filter_of(graph)
    for denoiser in model.denoisers.values():
        torch.nn.init.zeros_(denoiser.lin_gate.weight)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    for out in run(model, graph)[0].values():
        pairs = out.for_pairs(user, item)
        torch.testing.assert_close(pairs, out.x_hat[item], rtol=0, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_users_with_the_same_items_have_the_same_filter(planted: Callable, condition: str) -> None:
    graph = twins(planted())
    model = filter_of(graph, condition=condition)
    filtered, csr = run(model, graph)
    for name, out in filtered.items():
        assert (out.user is None) == (condition == "item")
        if out.user is not None:
            torch.testing.assert_close(out.user[0], out.user[1])
        torch.testing.assert_close(out.weight[0], out.weight[1])
        content = model.mean_content(filtered, csr)[name]
        torch.testing.assert_close(content[0], content[1])
        items = torch.arange(graph.num_items)
        first, second = (out.for_pairs(torch.tensor([u]), items) for u in (0, 1))
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_only_gates_make_the_filter_differ_between_users(planted: Callable, condition: str) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition)
    for out in run(model, graph)[0].values():
        users = torch.arange(graph.num_users)
        x = out.for_pairs(users.view(-1, 1), torch.tensor([4])).view(-1, 8)
        assert (out.gate is None) == (condition != "user")
        if condition == "user":
            other = ~torch.eye(len(users), dtype=torch.bool)
            for y in (out.gate, x):
                distance = (y.unsqueeze(1) - y).norm(dim=-1)
                assert (distance[other] > 1e-4).all()
        else:
            torch.testing.assert_close(x, x[:1].expand_as(x))


def test_other_users_change_an_items_filter_unless_ignored(
    planted: Callable,
) -> None:
    graph, other = planted(), planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    shuffled = torch.stack([(edges[0] + 7) % graph.num_users, edges[1].flip(0)])
    with_edges(other, shuffled.unique(dim=1))
    for condition in CONDITIONS:
        model = filter_of(graph, condition=condition)
        before, after = run(model, graph)[0]["image"], run(model, other)[0]["image"]
        same = torch.allclose(before.x_hat, after.x_hat, rtol=0, atol=1e-5)
        assert same == (condition == "item")


def test_weights_of_modalities_are_1_on_average(planted: Callable) -> None:
    for modalities in (("image",), ("image", "text"), ("image", "text", "sound")):
        graph = planted(*modalities)
        model = filter_of(graph)
        weights = weights_of(run(model, graph)[0])
        assert weights.shape == (graph.num_users, len(modalities))
        assert ((weights > 0) & (weights < 2)).all()


def test_modality_weights_depend_on_all_views_of_a_user(planted: Callable) -> None:
    graph = planted()
    model = filter_of(graph)
    filtered, lin = run(model, graph)[0], model.lin_modality
    for u, weights in enumerate(weights_of(filtered)):
        user = torch.cat([filtered["image"].user[u], filtered["text"].user[u]])
        expected = 2 / (1 + (-lin.weight @ user - lin.bias).exp())
        torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("condition", ["item", "neighbors"])
def test_modality_weights_without_gates_are_one_number_for_all(
    planted: Callable, condition: str
) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition)
    assert (weights_of(run(model, graph)[0]) == 1).all()
    model.modality_bias.data.copy_(torch.tensor([-1.0, 2.0]))
    expected = [2 / (1 + math.exp(1.0)), 2 / (1 + math.exp(-2.0))]
    for asked in (None, torch.tensor([3, 5])):
        weights = weights_of(model(graph.features, items_of(graph), training_csr(graph), asked))
        assert weights.shape == (graph.num_users if asked is None else 2, 2)
        torch.testing.assert_close(weights, torch.tensor([expected]).expand_as(weights))


def test_absent_content_is_never_read(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    present, batch = without_some_images(graph), batch_of(graph)
    model, outs = filter_of(graph, incomplete=["image"]), []
    for value in (0.0, 100.0, torch.nan):
        graph.features["image"][~present] = value
        filtered, csr = run(model, graph)
        content = model.mean_content(filtered, csr)
        outs.append(
            [
                *(out.x_hat for out in filtered.values()),
                model.diffusion_loss(filtered, graph.features, *batch[:2], seeded()),
                model.ranking_loss(filtered, content, graph.features, csr, *batch),
            ]
        )
    assert all(x.isfinite().all() for x in outs[0])
    assert all(torch.equal(a, b) for out in outs[1:] for a, b in zip(out, outs[0], strict=True))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_without_any_interaction_all_is_finite(planted: Callable, condition: str) -> None:
    graph = planted()
    with_edges(graph, torch.empty(2, 0, dtype=torch.long))
    model = filter_of(graph, condition=condition)
    filtered, csr = run(model, graph)
    triples = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    content = model.mean_content(filtered, csr)
    loss = model.ranking_loss(filtered, content, graph.features, csr, *triples)
    loss = loss + model.diffusion_loss(filtered, graph.features, *triples[:2])
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for out in filtered.values():
        # Nobody says anything of an item: the gate is 1.
        expected = out._replace(gate=None).for_pairs(*triples[:2])
        torch.testing.assert_close(out.x_hat[1:2], expected)


def test_reset_draws_all_weights_anew(planted: Callable) -> None:
    model = filter_of(planted(), incomplete=["image"])
    other = copy.deepcopy(model)
    for seed, module in ((1, model), (1, other)):
        torch.manual_seed(seed)
        module.reset_parameters()
    first = filter_of(planted(), incomplete=["image"])
    old = dict(first.named_parameters())
    for (name, a), b in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, old[name]) == (a == 0).all(), name  # but for biases that start at 0
    assert model.encoders["image"].missing is not None


@pytest.mark.parametrize(
    ("in_channels", "kwargs", "message"),
    [
        ({}, {}, r"'in_channels' must name at least one modality \(got none\)"),
        ({"image": 4}, {"num_sampling_steps": -1}, r"0 <= 'num_sampling_steps' .* \(got -1, 100"),
        ({"image": 4}, {"start_step": 10, "num_sampling_steps": 11}, r"\(got 11, 10, 600\)"),
        ({"image": 4}, {"start_step": 601}, r"'start_step' <= 'num_steps'.* \(got 1, 601, 600\)"),
        ({"image": 4}, {"condition": "users"}, r"'condition' must be one of .* \(got 'users'\)"),
        ({"image": 4}, {"incomplete": ["text"]}, r"'incomplete' must name some of \['image'\]"),
        ({"image": 4}, {"incomplete": "image"}, r"'incomplete' must name some .* \(got 'image'\)"),
        ({"image": 4}, {"strength": -1.0}, r"'strength' must be finite and .* \(got -1.0\)"),
        ({"image": 4}, {"loss_batch_size": 0}, r"'loss_batch_size' must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(
    in_channels: dict[str, int], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ContentFilter(in_channels, **kwargs)


@pytest.mark.parametrize("condition", ["neighbors", "user"])
@pytest.mark.parametrize("user_ids", [False, True])
def test_rows_of_other_users_come_from_the_history(
    planted: Callable, condition: str, user_ids: bool
) -> None:
    graph = planted()
    item_emb, user_emb = items_of(graph), torch.randn(graph.num_users, 8, generator=seeded())
    exact = GraphRecommender(graph.num_users, graph.num_items).csr_graph(graph.edge_index_dict)
    training = training_csr(graph)
    assert exact.history is None and len(training.history) == 0
    model = filter_of(graph, condition=condition, user_ids=user_ids)
    mean = exact[USER_TO_ITEM].to_dense()
    mean = mean / mean.sum(1, keepdim=True).clamp(min=1)

    def rows_of_now() -> dict[str, Tensor]:
        filtered = model(graph.features, item_emb, exact, user_emb=user_emb)
        parts = {name: [f.user, f.gate] for name, f in filtered.items()}
        return {
            name: torch.cat([x for x in part if x is not None], dim=1).detach()
            for name, part in parts.items()
        }

    known = rows_of_now()  # at the beginning all are looked at
    for asked in (torch.arange(0, 60, 3), torch.tensor([1, 3]), torch.tensor([7])):
        for name, rows in rows_of_now().items():
            known[name][asked] = rows[asked]
        out = model(graph.features, item_emb, training, asked, user_emb)
        for name, f in out.items():
            expected = mean @ known[name]
            torch.testing.assert_close(f.cond - F.layer_norm(item_emb, (8,)), expected[:, :8])
            torch.testing.assert_close(f.user, known[name][asked][:, :8])
            gate = None if f.gate is None else expected[:, 8:]
            x_hat = gated(f.base, f.h, gate, f.to_content)
            torch.testing.assert_close(f.x_hat, x_hat, rtol=1e-4, atol=1e-4)
        with torch.no_grad():  # a step; and looking does not write
            torch.manual_seed(int(asked[0]))
            for p in model.parameters():
                p.add_(0.3 * torch.randn_like(p))
            model(graph.features, item_emb, training, torch.arange(60), user_emb)
    stale = model(graph.features, item_emb, training, torch.tensor([0]), user_emb)
    again = model(graph.features, item_emb, training_csr(graph), torch.tensor([0]), user_emb)
    whole = model(graph.features, item_emb, exact, user_emb=user_emb)
    for name in graph.in_channels:
        torch.testing.assert_close(again[name].x_hat, whole[name].x_hat, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(stale[name].x_hat, whole[name].x_hat, atol=1e-2)


def test_two_filters_on_one_graph_keep_their_rows_apart(planted: Callable) -> None:
    graph, asked = planted(), torch.tensor([2, 5])
    training, x_hat = training_csr(graph), {}
    for order in ("first", "again"):
        for seed in (1, 2):
            torch.manual_seed(seed)
            model = (
                filter_of(graph)
                if seed == 1
                else ContentFilter(graph.in_channels, 8, user_ids=False)
            )
            x_hat[seed, order] = model(graph.features, items_of(graph), training, asked)["image"]
    for seed in (1, 2):
        first, again = (x_hat[seed, order].x_hat for order in ("first", "again"))
        torch.testing.assert_close(first, again)
    assert not torch.allclose(x_hat[1, "first"].x_hat, x_hat[2, "first"].x_hat)


def test_a_filter_that_is_not_in_training_keeps_nothing(planted: Callable) -> None:
    graph = planted()
    training, model = training_csr(graph), filter_of(graph).eval()
    model(graph.features, items_of(graph), training, torch.tensor([2, 5]))
    assert len(training.history) == 0


def test_rows_of_another_type_are_not_kept(planted: Callable) -> None:
    graph, asked = planted(), torch.tensor([2, 5])
    training, model = training_csr(graph), filter_of(graph)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            model(graph.features, items_of(graph), training, asked)
        out = model(graph.features, items_of(graph), training, asked)["image"]
        whole = model(graph.features, items_of(graph), training_csr(graph))["image"]
        torch.testing.assert_close(out.x_hat, whole.x_hat, rtol=1e-4, atol=1e-4)
