from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM, CSRGraph
from gtc_pyg.models import ContentFilter
from gtc_pyg.models.gtc.filtered_content import FilteredContent
from gtc_pyg.models.gtc.losses import noise_error, separation
from tests.models.filters import (
    CONDITIONS,
    filter_of,
    items_of,
    run,
    training_csr,
    weights_of,
    x_hat_of,
)
from tests.models.graphs import seeded, with_edges, without_some_images


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
    times = model.sampler.schedule.sample_times(size[0] * size[1], generator).view(size)
    noises = model.sampler.schedule.sample_noise(torch.empty(*size, 8), generator)
    for (name, out), t, noise in zip(filtered.items(), times, noises, strict=True):
        errors = []
        for row, (u, i) in enumerate(zip(user, item, strict=True)):
            if name == "image" and not present[i]:
                continue
            x_t = model.sampler.schedule.add_noise(out.x[i], int(t[row]), noise[row])
            h = model.denoisers[name].hidden(x_t, int(t[row]), out.cond[i])
            gate = None if out.gate is None else out.gate[u]
            predicted = model.denoisers[name].noise(h, gate)
            errors.append((predicted - noise[row]).pow(2).mean())
        losses.append(torch.stack(errors).mean())
    torch.testing.assert_close(loss, torch.stack(losses).mean(), rtol=1e-5, atol=1e-6)


def ranking_by_loop(
    model: ContentFilter,
    filtered: dict[str, FilteredContent],
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
            mean = torch.stack([x_hat_of(model, name, out, u, j) for j in others]).mean(dim=0)
            near, far = (
                F.cosine_similarity(mean, x_hat_of(model, name, out, u, j), 0) for j in (i, n)
            )
            terms.append(F.softplus(-5 * (near - far)))
            joint[row] = joint.get(row, torch.zeros(())) + weights[u, m] * (near - far)
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses).mean() + F.softplus(-5 * torch.stack([*joint.values()])).mean()


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("case", ["whole", "pruned", "masks", "one item"])
def test_ranking_loss_equals_a_loop_without_the_positive(
    planted: Callable, batch_of: Callable, condition: str, case: str
) -> None:
    graph = planted()
    if case == "masks":
        without_some_images(graph)
    if case == "one item":
        edges = graph.edge_index_dict[USER_TO_ITEM]
        first = (edges[0] == 0).nonzero()[0]
        with_edges(graph, torch.cat([edges[:, first], edges[:, edges[0] != 0]], dim=1))
    csr = training_csr(graph, 0.5 if case == "pruned" else 0.0)
    incomplete = ["image"] if case == "masks" else []
    model = filter_of(graph, condition=condition, incomplete=incomplete)
    triples = tuple(ids[:60] for ids in batch_of(graph))
    assert csr.contains(*triples[:2]).all() == (case != "pruned")
    filtered = model(graph.features, items_of(graph), csr)
    content = model.mean_content(filtered, csr)
    loss = model.ranking_loss(filtered, content, graph.features, csr, *triples)
    expected = ranking_by_loop(model, filtered, graph, csr, triples)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_user_of_one_item_teaches_the_filter_nothing(planted: Callable) -> None:
    graph = planted()
    with_edges(graph, torch.tensor([[0, 1, 2], [5, 6, 7]]))
    model = filter_of(graph)
    filtered, csr = run(model, graph)
    user, pos, neg = torch.tensor([0, 1]), torch.tensor([5, 6]), torch.tensor([7, 8])
    content = model.mean_content(filtered, csr)
    loss = model.ranking_loss(filtered, content, graph.features, csr, user, pos, neg)
    assert loss.item() == 0


def test_losses_teach_what_they_should(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model, batch = filter_of(graph), batch_of(graph)
    item_emb = items_of(graph).requires_grad_()

    def parts_with_gradient(of: str) -> set[str]:
        model.zero_grad()
        csr = training_csr(graph)
        filtered = model(graph.features, item_emb, csr)
        if of == "diffusion":
            loss = model.diffusion_loss(filtered, graph.features, *batch[:2])
        else:
            content = model.mean_content(filtered, csr)
            loss = model.ranking_loss(filtered, content, graph.features, csr, *batch)
        loss.backward()
        found = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
        return {name.split(".")[0] for name, grad in found if grad.abs().sum() > 0}

    assert parts_with_gradient("diffusion") == {"denoisers", "views"}
    assert parts_with_gradient("ranking") == {"encoders", "denoisers", "views", "lin_modality"}
    assert item_emb.grad is None


@pytest.mark.parametrize("leak", [False, True])
def test_training_does_not_shrink_encoded_content(
    planted: Callable, batch_of: Callable, monkeypatch: pytest.MonkeyPatch, leak: bool
) -> None:
    # Distance and variance after / before, four seeds: 1.05 or more; where the diffusion loss
    # reaches the encoders (the leak), 0.49 or less, in spite of the normalisation.
    graph = planted()
    model, item_emb, csr = filter_of(graph, 16), items_of(graph, 16), training_csr(graph)
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
            content = model.mean_content(filtered, csr)
            loss = model.ranking_loss(filtered, content, graph.features, csr, *triples)
            diffusion = model.diffusion_loss(filtered, graph.features, *triples[:2], generator)
            optimizer.zero_grad()
            (0.1 * loss + 100 * diffusion).backward()
            optimizer.step()
    ratio = spread() / before
    assert (ratio < 0.6).all() if leak else (ratio > 0.95).all(), ratio


def test_a_generator_decides_the_diffusion_loss_alone(
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


def test_noise_error_by_hand() -> None:
    predicted, noise = torch.tensor([[[1.0, 1.0], [0.0, 9.0]], [[3.0, 1.0], [2.0, 0.0]]]), 1.0
    present = torch.tensor([[True, False], [True, True]])
    # First modality: 0. Second: (4 + 0) / 2 and (1 + 1) / 2, on average 1.5.
    out = noise_error(predicted, torch.full_like(predicted, noise), present)
    assert out.item() == pytest.approx((0 + 1.5) / 2)
    assert noise_error(predicted, predicted + 1, torch.zeros(2, 2, dtype=torch.bool)) == 0


def test_separation_by_hand() -> None:
    # Two modalities, one pair; cosines with the user's mean: 1 and 0, then 0.6 and 0.8.
    others = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]])
    pos = torch.tensor([[[5.0, 0.0]], [[0.8, 0.6]]])
    neg = torch.tensor([[[0.0, 1.0]], [[0.6, 0.8]]])
    weight, usable = torch.tensor([[1.5], [0.5]]), torch.ones(2, 1, dtype=torch.bool)

    def loss(d: float) -> float:
        return math.log1p(math.exp(-5 * d))

    expected = (loss(1.0) + loss(-0.2)) / 2 + loss(1.5 * 1.0 + 0.5 * -0.2)
    assert separation(others, pos, neg, weight, usable).item() == pytest.approx(expected)
    usable[1] = False  # the mean over modalities stays one over all of them
    expected = (loss(1.0) + 0) / 2 + loss(1.5)
    assert separation(others, pos, neg, weight, usable).item() == pytest.approx(expected)
