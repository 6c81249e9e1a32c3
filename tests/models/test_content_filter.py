from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.models import ContentFilter, GraphRecommender
from gtc_pyg.models.filtered import Filtered, gated
from gtc_pyg.models.graph_recommender import ITEM_TO_USER, USER_TO_ITEM, CSRGraph

CONDITIONS = ["item", "neighbors", "user"]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def filter_of(graph: SimpleNamespace, channels: int = 8, **kwargs: Any) -> ContentFilter:
    torch.manual_seed(0)
    return ContentFilter(graph.in_channels, channels, **kwargs)


def items_of(graph: SimpleNamespace, channels: int = 8) -> Tensor:
    return 0.1 * torch.randn(graph.num_items, channels, generator=seeded())


def csr_of(graph: SimpleNamespace, edge_dropout: float = 0.0) -> CSRGraph:
    model = GraphRecommender(graph.num_users, graph.num_items, edge_dropout)
    return model.training_graph(graph.edge_index_dict, generator=seeded())


def run(model: ContentFilter, graph: SimpleNamespace) -> tuple[dict[str, Filtered], CSRGraph]:
    csr = csr_of(graph)
    return model(graph.features, items_of(graph), csr), csr


def with_edges(graph: SimpleNamespace, edges: Tensor) -> SimpleNamespace:
    graph.edge_index_dict[USER_TO_ITEM], graph.edge_index_dict[ITEM_TO_USER] = edges, edges.flip(0)
    return graph


def twins(graph: SimpleNamespace) -> SimpleNamespace:
    r"""Gives user 1 the items of user 0."""
    edges = graph.edge_index_dict[USER_TO_ITEM]
    items = edges[1][edges[0] == 0]
    copies = torch.stack([torch.ones_like(items), items])
    return with_edges(graph, torch.cat([edges[:, edges[0] != 1], copies], dim=1))


def without_some_images(graph: SimpleNamespace) -> Tensor:
    r"""Marks 15 of the items as lacking their image."""
    graph.features["has_image"] = torch.randperm(graph.num_items, generator=seeded()) >= 15
    return graph.features["has_image"]


def weights_of(filtered: dict[str, Filtered]) -> Tensor:
    r"""``[N, M]``."""
    return torch.stack([out.weight for out in filtered.values()], dim=1)


def start(model: ContentFilter, name: str, out: Filtered, u: int, i: int) -> Tensor:
    r"""The content of item i filtered for user u, from the equation."""
    level = model.schedule.alpha_bar[model.times[-2]].to(out.h.dtype)
    lin, gate = model.denoisers[name].lin_out, 1 if out.gate is None else out.gate[u]
    noise = lin.weight @ (gate * out.h[i]) + lin.bias
    return (out.x_t[i] - (1 - level).sqrt() * noise) / level.sqrt()


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("num_sampling_steps", [1, 4])
def test_it_equals_the_denoising_steps_one_by_one(
    planted: Callable, condition: str, num_sampling_steps: int
) -> None:
    graph = planted()
    steps = {"start_step": 90, "num_sampling_steps": num_sampling_steps}
    model = filter_of(graph, condition=condition, filter_channels=5, **steps)
    item = F.layer_norm(items_of(graph), (8,))
    for name, out in run(model, graph)[0].items():
        x = model.encoders[name](graph.features[name])
        x_t = model.schedule.alpha_bar[90].float().sqrt() * x
        times = {1: [90, 0], 4: [90, 68, 45, 22, 0]}[num_sampling_steps]
        for t, t_next in pairwise(times):
            edges = graph.edge_index_dict[USER_TO_ITEM]
            user = torch.randn(graph.num_users, 8) if condition == "item" else out.user
            noise = model.denoisers[name]((user, item), edges, x_t, t)
            x_t = model.schedule.step(x_t, t, t_next, noise)
        torch.testing.assert_close(out.x, x)
        torch.testing.assert_close(out.x_hat, x_t, rtol=1e-5, atol=1e-5)


def test_a_user_is_seen_through_the_mean_content_of_their_items(planted: Callable) -> None:
    graph = with_edges(planted(), planted().edge_index_dict[USER_TO_ITEM][:, 9:])
    model = filter_of(graph)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    for name, out in run(model, graph)[0].items():
        for u in range(graph.num_users):
            mean = torch.stack([torch.zeros(8), *out.x[item[user == u]]]).sum(dim=0)
            mean = mean / max(1, int((user == u).sum()))
            expected = model.views[name](F.layer_norm(mean, (8,)))
            torch.testing.assert_close(out.user[u], expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(out.gate[u], model.denoisers[name].gate(expected))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("num_sampling_steps", [1, 3])
def test_for_users_equals_the_filter_edge_by_edge(
    planted: Callable, condition: str, num_sampling_steps: int
) -> None:
    graph = planted()
    steps = {"num_sampling_steps": num_sampling_steps}
    model = filter_of(graph, condition=condition, filter_channels=11, **steps)
    filtered, csr = run(model, graph)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    for name, out in model.for_users(filtered, csr).items():
        for u in range(graph.num_users):
            pairs = [start(model, name, filtered[name], u, i) for i in item[user == u]]
            expected = torch.stack(pairs).mean(dim=0)
            torch.testing.assert_close(out[u], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_asked_for_some_users_all_is_the_same(
    planted: Callable, batch_of: Callable, condition: str
) -> None:
    graph = planted()
    model, csr, item_emb = filter_of(graph, condition=condition), csr_of(graph), items_of(graph)
    user, pos, neg = (ids[:90] for ids in batch_of(graph))
    some, row = user.unique(return_inverse=True)
    assert 10 < some.numel() < graph.num_users
    found = []
    for asked, at in ((None, user), (some, row)):
        model.zero_grad()
        filtered = model(graph.features, item_emb, csr, asked)
        content, triples = model.for_users(filtered, csr), (at, pos, neg)
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
        # Users learn from what they tell items, too, which the next test looks at.
        told = {id(p) for p in (*model.views.parameters(), *gates_of(model))}
        learns = [p for p in model.parameters() if id(p) not in told]
        grads = [p.grad for p in learns if p.grad is not None]
        found.append([*losses, weights, *rows, *pairs, *grads])
    assert len(found[0]) == len(found[1]) > 20
    for every, few in zip(*found, strict=True):
        torch.testing.assert_close(few, every, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_item_teaches_the_users_that_were_asked_for(planted: Callable, condition: str) -> None:
    graph = planted()
    model, csr, item_emb = filter_of(graph, condition=condition), csr_of(graph), items_of(graph)
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
    model, csr, item_emb = filter_of(graph), csr_of(graph), items_of(graph)
    user = torch.tensor([0, 7, 59])
    grads = []
    for asked, mine in ((None, user), (user, slice(None))):
        model.zero_grad()
        filtered = model(graph.features, item_emb, csr, asked)
        filtered = {name: f._replace(h=f.h.detach()) for name, f in filtered.items()}
        content = model.for_users(filtered, csr)
        torch.stack([x[mine].pow(3).sum() for x in content.values()]).sum().backward()
        grads.append([p.grad for p in (*model.views.parameters(), *gates_of(model))])
    for every, some in zip(*grads, strict=True):
        assert every.abs().sum() > 0
        torch.testing.assert_close(some, every, rtol=1e-4, atol=1e-5)


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
        filter_of(graph)(graph.features, items_of(graph), csr_of(graph), torch.tensor(user))


def test_ids_tell_the_denoisers_of_a_user_where_they_are_asked_to(planted: Callable) -> None:
    graph = planted()
    csr, item_emb = csr_of(graph), items_of(graph).requires_grad_()
    user_emb = torch.randn(graph.num_users, 8, generator=seeded()).requires_grad_()
    model = filter_of(graph, user_ids=True)
    filtered = model(graph.features, item_emb, csr, user_emb=user_emb)
    mean = csr[ITEM_TO_USER].to_dense()
    mean = mean / mean.sum(1, keepdim=True).clamp(min=1)
    for name, out in filtered.items():
        content = F.layer_norm(mean @ out.x, (8,))
        ids = F.normalize(user_emb) + F.normalize(mean @ F.normalize(item_emb))
        view = model.views[name](torch.cat([content, F.layer_norm(ids, (8,))], dim=1))
        torch.testing.assert_close(out.user, view, rtol=1e-4, atol=1e-4)
        out.user.sum().backward(retain_graph=True)
    assert user_emb.grad is None and item_emb.grad is None
    with pytest.raises(ValueError, match="'user_emb' must be given where 'user_ids' is on"):
        model(graph.features, item_emb, csr)


def gates_of(model: ContentFilter) -> list[torch.nn.Parameter]:
    r"""Weights of the gates, of a filter that has any."""
    lins = [denoiser.lin_gate for denoiser in model.denoisers.values()]
    return [p for lin in lins if lin is not None for p in lin.parameters()]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_pairs_of_any_shape_are_filtered_by_the_equation(planted: Callable, condition: str) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition, num_sampling_steps=2)
    filtered, _ = run(model, graph)
    user, item = torch.tensor([3, 0, 9]), torch.tensor([5, 5, 8])
    for name, out in filtered.items():
        pairs = out.for_pairs(user, item)
        expected = [start(model, name, out, u, i) for u, i in zip(user, item, strict=True)]
        torch.testing.assert_close(pairs, torch.stack(expected), rtol=0, atol=1e-5)
        grid = out.for_pairs(user.view(-1, 1), item).expand(3, 3, 8)
        torch.testing.assert_close(grid.diagonal().t(), pairs)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_inner_products_of_factors_equal_those_pair_by_pair(
    planted: Callable, condition: str
) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition, filter_channels=5, num_sampling_steps=2)
    filtered, _ = run(model, graph)
    p = F.normalize(torch.randn(graph.num_users, 8, generator=seeded()), dim=-1)
    for name, out in filtered.items():
        of_users, of_items = out.factors(p)
        assert of_users.shape == (len(p), 8 + 5)
        assert of_items.shape == (graph.num_items, 8 + 5)
        for u in range(graph.num_users):
            pairs = torch.stack([start(model, name, out, u, i) for i in range(graph.num_items)])
            torch.testing.assert_close(of_items @ of_users[u], pairs @ p[u], rtol=0, atol=1e-5)


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
        content = model.for_users(filtered, csr)[name]
        torch.testing.assert_close(content[0], content[1])
        items = torch.arange(graph.num_items)
        first, second = (out.for_pairs(torch.tensor([u]), items) for u in (0, 1))
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_only_gates_filter_an_item_for_one_user_unlike_for_another(
    planted: Callable, condition: str
) -> None:
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


def test_what_users_say_of_an_item_changes_its_filter_unless_the_item_is_all(
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


def test_weights_of_modalities_are_told_by_all_that_a_user_is(planted: Callable) -> None:
    graph = planted()
    model = filter_of(graph)
    filtered, lin = run(model, graph)[0], model.lin_modality
    for u, weights in enumerate(weights_of(filtered)):
        told = torch.cat([filtered["image"].user[u], filtered["text"].user[u]])
        expected = 2 / (1 + (-lin.weight @ told - lin.bias).exp())
        torch.testing.assert_close(weights, expected)


@pytest.mark.parametrize("condition", ["item", "neighbors"])
def test_a_filter_that_is_alike_for_everybody_weighs_modalities_alike(
    planted: Callable, condition: str
) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition)
    assert (weights_of(run(model, graph)[0]) == 1).all()
    model.modality_bias.data.copy_(torch.tensor([-1.0, 2.0]))
    expected = [2 / (1 + math.exp(1.0)), 2 / (1 + math.exp(-2.0))]
    for asked in (None, torch.tensor([3, 5])):
        weights = weights_of(model(graph.features, items_of(graph), csr_of(graph), asked))
        assert weights.shape == (graph.num_users if asked is None else 2, 2)
        torch.testing.assert_close(weights, torch.tensor([expected]).expand_as(weights))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_diffusion_loss_equals_a_loop_over_present_pairs(
    planted: Callable, batch_of: Callable, condition: str
) -> None:
    graph = planted()
    present = without_some_images(graph)
    model = filter_of(graph, condition=condition, incomplete=["image"])
    user, item, _ = batch_of(graph)
    filtered, _ = run(model, graph)
    loss = model.diffusion_loss(filtered, graph.features, user, item, seeded())
    generator, losses = seeded(), []
    size = len(filtered), user.numel()
    times = model.schedule.sample_times(size[0] * size[1], generator).view(size)
    noises = model.schedule.sample_noise(torch.empty(*size, 8), generator)
    for (name, out), t, noise in zip(filtered.items(), times, noises, strict=True):
        errors = []
        for row, (u, i) in enumerate(zip(user, item, strict=True)):
            if name == "image" and not present[i]:
                continue
            x_t = model.schedule.add_noise(out.x[i], int(t[row]), noise[row])
            h = model.denoisers[name].hidden(x_t, int(t[row]), out.cond[i])
            gate = None if out.gate is None else out.gate[u]
            predicted = model.denoisers[name].noise(h, gate)
            errors.append((predicted - noise[row]).pow(2).mean())
        losses.append(torch.stack(errors).mean())
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def ranking_by_loop(
    model: ContentFilter,
    filtered: dict[str, Filtered],
    graph: SimpleNamespace,
    csr: CSRGraph,
    triples: tuple[Tensor, ...],
) -> Tensor:
    r"""The filter's own ranking loss, each pair filtered from the equation."""
    dense, weights = csr[ITEM_TO_USER].to_dense(), weights_of(filtered)
    triples = list(zip(*(ids.tolist() for ids in triples), strict=True))
    joint: dict[int, Tensor] = {}
    losses = []
    for m, (name, out) in enumerate(filtered.items()):
        present = graph.features.get(f"has_{name}", torch.ones(graph.num_items))
        terms = []
        for row, (u, i, n) in enumerate(triples):
            others = [j for j in dense[u].nonzero().view(-1).tolist() if j != i]
            if len(others) == 0 or not present[i] or not present[n]:
                continue
            mean = torch.stack([start(model, name, out, u, j) for j in others]).mean(dim=0)
            near, far = (
                F.cosine_similarity(mean, start(model, name, out, u, j), 0) for j in (i, n)
            )
            terms.append(F.softplus(-5 * (near - far)))
            joint[row] = joint.get(row, torch.zeros(())) + weights[u, m] * (near - far)
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean() + F.softplus(-5 * torch.stack([*joint.values()])).mean()


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("case", ["whole", "pruned", "masks", "one item"])
def test_the_ranking_loss_equals_a_loop_that_leaves_the_positive_out(
    planted: Callable, batch_of: Callable, condition: str, case: str
) -> None:
    graph = planted()
    if case == "masks":
        without_some_images(graph)
    if case == "one item":
        edges = graph.edge_index_dict[USER_TO_ITEM]
        first = (edges[0] == 0).nonzero()[0]
        with_edges(graph, torch.cat([edges[:, first], edges[:, edges[0] != 0]], dim=1))
    csr = csr_of(graph, 0.5 if case == "pruned" else 0.0)
    model = filter_of(graph, condition=condition, incomplete=["image"])
    triples = tuple(ids[:60] for ids in batch_of(graph))
    assert csr.contains(*triples[:2]).all() == (case != "pruned")
    filtered = model(graph.features, items_of(graph), csr)
    content = model.for_users(filtered, csr)
    loss = model.ranking_loss(filtered, content, graph.features, csr, *triples)
    expected = ranking_by_loop(model, filtered, graph, csr, triples)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_user_of_one_item_teaches_the_filter_nothing(planted: Callable) -> None:
    graph = planted()
    with_edges(graph, torch.tensor([[0, 1, 2], [5, 6, 7]]))
    model = filter_of(graph)
    filtered, csr = run(model, graph)
    user, pos, neg = torch.tensor([0, 1]), torch.tensor([5, 6]), torch.tensor([7, 8])
    content = model.for_users(filtered, csr)
    loss = model.ranking_loss(filtered, content, graph.features, csr, user, pos, neg)
    assert loss.item() == 0


def test_losses_teach_what_they_should(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model, batch = filter_of(graph), batch_of(graph)
    item_emb = items_of(graph).requires_grad_()

    def taught(of: str) -> set[str]:
        model.zero_grad()
        csr = csr_of(graph)
        filtered = model(graph.features, item_emb, csr)
        if of == "diffusion":
            loss = model.diffusion_loss(filtered, graph.features, *batch[:2])
        else:
            content = model.for_users(filtered, csr)
            loss = model.ranking_loss(filtered, content, graph.features, csr, *batch)
        loss.backward()
        found = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
        return {name.split(".")[0] for name, grad in found if grad.abs().sum() > 0}

    assert taught("diffusion") == {"denoisers", "views"}
    assert taught("ranking") == {"encoders", "denoisers", "views", "lin_modality"}
    assert item_emb.grad is None


@pytest.mark.parametrize("leak", [False, True])
def test_the_spread_of_encoded_content_does_not_shrink_in_training(
    planted: Callable, batch_of: Callable, monkeypatch: pytest.MonkeyPatch, leak: bool
) -> None:
    # Distance and variance after / before, four seeds: 1.05 or more; where the diffusion loss
    # reaches the encoders (the leak), 0.49 or less, in spite of the normalisation.
    graph = planted()
    model, item_emb, csr = filter_of(graph, 16), items_of(graph, 16), csr_of(graph)
    batch = batch_of(graph)
    optimizer, generator = torch.optim.Adam(model.parameters(), lr=0.01), seeded()

    def spread() -> Tensor:
        with torch.no_grad():
            x = torch.stack([model.encoders[name](x) for name, x in graph.features.items()])
        x = x - x.mean(dim=1, keepdim=True)
        return torch.stack([x.norm(dim=2).mean(dim=1), x.pow(2).mean(dim=1).sum(dim=1)])

    before = spread()
    with monkeypatch.context() as patch:
        if leak:
            patch.setattr(torch.Tensor, "detach", lambda x: x)
        for _ in range(120):
            rows = torch.randint(batch[0].numel(), (128,), generator=generator)
            triples = tuple(ids[rows] for ids in batch)
            filtered = model(graph.features, item_emb, csr)
            content = model.for_users(filtered, csr)
            loss = model.ranking_loss(filtered, content, graph.features, csr, *triples)
            diffusion = model.diffusion_loss(filtered, graph.features, *triples[:2], generator)
            optimizer.zero_grad()
            (0.1 * loss + 100 * diffusion).backward()
            optimizer.step()
    ratio = spread() / before
    assert (ratio < 0.6).all() if leak else (ratio > 0.95).all(), ratio


def test_a_generator_decides_the_diffusion_loss_and_the_filter_draws_nothing(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model, (user, item, _) = filter_of(graph), batch_of(graph)
    state = torch.get_rng_state()
    first, again = run(model, graph)[0], run(model, graph)[0]
    assert all(torch.equal(first[name].x_hat, again[name].x_hat) for name in first)
    losses = [model.diffusion_loss(first, graph.features, user, item, seeded(s)) for s in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_absent_content_is_never_looked_at(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    present, batch = without_some_images(graph), batch_of(graph)
    model, outs = filter_of(graph, incomplete=["image"]), []
    for value in (0.0, 100.0, torch.nan):
        graph.features["image"][~present] = value
        filtered, csr = run(model, graph)
        content = model.for_users(filtered, csr)
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
    content = model.for_users(filtered, csr)
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
        ({"image": 4}, {"num_sampling_steps": 0}, r"1 <= 'num_sampling_steps' .* \(got 0, 100"),
        ({"image": 4}, {"start_step": 10, "num_sampling_steps": 11}, r"\(got 11, 10, 600\)"),
        ({"image": 4}, {"start_step": 601}, r"'start_step' <= 'num_steps' \(got 1, 601, 600\)"),
        ({"image": 4}, {"condition": "users"}, r"'condition' must be one of .* \(got 'users'\)"),
        ({"image": 4}, {"incomplete": ["text"]}, r"'incomplete' must name some of \['image'\]"),
        ({"image": 4}, {"incomplete": "image"}, r"'incomplete' must name some .* \(got 'image'\)"),
        ({"image": 4}, {"schedule": "square"}, r"'linear' or 'cosine' \(got 'square'\)"),
    ],
)
def test_wrong_arguments_are_named(
    in_channels: dict[str, int], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        ContentFilter(in_channels, **kwargs)


@pytest.mark.parametrize("condition", ["neighbors", "user"])
@pytest.mark.parametrize("user_ids", [False, True])
def test_users_not_asked_for_are_as_they_were_when_they_last_were(
    planted: Callable, condition: str, user_ids: bool
) -> None:
    graph = planted()
    item_emb, user_emb = items_of(graph), torch.randn(graph.num_users, 8, generator=seeded())
    exact = GraphRecommender(graph.num_users, graph.num_items).csr_graph(graph.edge_index_dict)
    training = csr_of(graph)
    assert exact.history is None and len(training.history) == 0
    model = filter_of(graph, condition=condition, user_ids=user_ids)
    mean = exact[USER_TO_ITEM].to_dense()
    mean = mean / mean.sum(1, keepdim=True).clamp(min=1)

    def told() -> dict[str, Tensor]:
        filtered = model(graph.features, item_emb, exact, user_emb=user_emb)
        parts = {name: [f.user, f.gate] for name, f in filtered.items()}
        return {
            name: torch.cat([x for x in part if x is not None], dim=1).detach()
            for name, part in parts.items()
        }

    known = told()  # at the beginning all are looked at
    for asked in (torch.arange(0, 60, 3), torch.tensor([1, 3]), torch.tensor([7])):
        for name, rows in told().items():
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
    again = model(graph.features, item_emb, csr_of(graph), torch.tensor([0]), user_emb)
    whole = model(graph.features, item_emb, exact, user_emb=user_emb)
    for name in graph.in_channels:
        torch.testing.assert_close(again[name].x_hat, whole[name].x_hat, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(stale[name].x_hat, whole[name].x_hat, atol=1e-2)


def test_two_filters_on_one_graph_keep_their_rows_apart(planted: Callable) -> None:
    graph, asked = planted(), torch.tensor([2, 5])
    training, x_hat = csr_of(graph), {}
    for order in ("first", "again"):
        for seed in (1, 2):
            torch.manual_seed(seed)
            model = filter_of(graph) if seed == 1 else ContentFilter(graph.in_channels, 8)
            x_hat[seed, order] = model(graph.features, items_of(graph), training, asked)["image"]
    for seed in (1, 2):
        first, again = (x_hat[seed, order].x_hat for order in ("first", "again"))
        torch.testing.assert_close(first, again)
    assert not torch.allclose(x_hat[1, "first"].x_hat, x_hat[2, "first"].x_hat)


def test_a_filter_that_is_not_in_training_keeps_nothing(planted: Callable) -> None:
    graph = planted()
    training, model = csr_of(graph), filter_of(graph).eval()
    model(graph.features, items_of(graph), training, torch.tensor([2, 5]))
    assert len(training.history) == 0


def test_rows_of_another_type_are_not_kept(planted: Callable) -> None:
    graph, asked = planted(), torch.tensor([2, 5])
    training, model = csr_of(graph), filter_of(graph)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            model(graph.features, items_of(graph), training, asked)
        out = model(graph.features, items_of(graph), training, asked)["image"]
        whole = model(graph.features, items_of(graph), csr_of(graph))["image"]
        torch.testing.assert_close(out.x_hat, whole.x_hat, rtol=1e-4, atol=1e-4)
