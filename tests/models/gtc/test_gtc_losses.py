from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.models import GTC, ItemBias
from gtc_pyg.nn import BPR, PairwiseInfoNCE, SampledSoftmax, TotalCorrelationLoss
from tests.models.filters import CONDITIONS
from tests.models.graphs import (
    MODALITIES,
    arguments,
    gtc_of,
    seeded,
    without_some_images,
)


def train(model: GTC, graph: SimpleNamespace, batch: tuple[Tensor, ...], steps: int = 60) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    csr, generator = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict), seeded()
    for _ in range(steps):
        rows = torch.randint(batch[0].numel(), (128,), generator=generator)
        triples = (ids[rows] for ids in batch)
        parts = model.loss(*triples, graph.features, csr, generator=generator)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("modalities", MODALITIES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_every_parameter_receives_a_gradient(
    planted: Callable,
    batch_of: Callable,
    modalities: tuple[str, ...],
    condition: str,
) -> None:
    graph = planted(*modalities)
    model = gtc_of(graph, condition=condition, hidden_channels=5)
    sum(model.loss(*batch_of(graph), *arguments(graph)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_gradients_reach_all_where_content_is_missing(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    without_some_images(graph)
    model = gtc_of(graph, incomplete=["image"])
    assert model.content_filter.encoders["image"].missing is not None
    sum(model.loss(*batch_of(graph), *arguments(graph)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_a_generator_decides_the_loss(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model, batch = gtc_of(graph), batch_of(graph)

    def loss(seed: int) -> float:
        parts = model.loss(*batch, *arguments(graph), generator=seeded(seed))
        return sum(parts.values()).item()

    state = torch.get_rng_state()
    assert loss(0) == loss(0) != loss(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_ranking_loss_is_that_of_the_scores(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, ranking=SampledSoftmax(7, scale=2.0), heads=[ItemBias()])
    user, pos, neg = batch_of(graph)
    user_emb, item_emb = model(*arguments(graph))
    score = user_emb @ item_emb.t()
    loss = model.loss(user, pos, neg, *arguments(graph))["ranking"]
    model.ranking = BPR(scale=2.0)
    bpr = model.loss(user, pos, neg, *arguments(graph))["ranking"]

    torch.testing.assert_close(bpr, F.softplus(score[user, neg] - score[user, pos]).mean())
    own = torch.zeros_like(score, dtype=torch.bool)
    own[tuple(graph.edge_index_dict[USER_TO_ITEM])] = True
    shared = neg[:7].unique()
    others = torch.where(own, 0, score.exp())[:, shared].sum(1)
    expected = -(score[user, pos].exp() / (score[user, pos].exp() + others[user])).log().mean()
    torch.testing.assert_close(loss, expected)


def test_the_filters_own_losses_enter_by_their_weights(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    without_some_images(graph)
    weights = {"diffusion": 0.7, "filter": 0.3}
    model, batch = gtc_of(graph, loss_weights=weights, incomplete=["image"]), batch_of(graph)
    parts = model.loss(*batch, *arguments(graph), generator=seeded())
    csr = model.csr_graph(*arguments(graph)[1:])
    filtered = model.filter_content(*arguments(graph))
    content = model.content_filter.mean_content(filtered, csr)
    diffusion = model.content_filter.diffusion_loss(filtered, graph.features, *batch[:2], seeded())
    ranking = model.content_filter.ranking_loss(filtered, content, graph.features, csr, *batch)
    torch.testing.assert_close(parts["diffusion"], 0.7 * diffusion)
    torch.testing.assert_close(parts["filter"], 0.3 * ranking)


def test_losses_on_content_take_the_first_pairs_of_a_batch(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    batch = batch_of(graph)
    first = tuple(ids[:5] for ids in batch)
    few, whole = (gtc_of(graph, loss_batch_size=size) for size in (5, 10_000))
    whole.load_state_dict(few.state_dict())
    parts = few.loss(*batch, *arguments(graph), generator=seeded())
    of_all = whole.loss(*batch, *arguments(graph), generator=seeded())
    of_first = whole.loss(*first, *arguments(graph), generator=seeded())
    for name, part in parts.items():
        same, other = of_first, of_all
        if name in ("ranking", "regularization"):
            same, other = of_all, of_first
        torch.testing.assert_close(part, same[name])
        assert not torch.allclose(part, other[name], rtol=1e-3), name


def test_diffusion_sends_no_gradient_to_encoders_or_ids(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model = gtc_of(graph)
    model.loss(*batch_of(graph), *arguments(graph))["diffusion"].backward()
    without_gradient = (model.content_filter.encoders, model.user_emb, model.item_emb)
    assert all(p.grad is None for module in without_gradient for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.content_filter.denoisers.parameters())


@pytest.mark.parametrize("part", ["filter", "total_correlation"])
def test_content_losses_send_no_gradient_to_ids(
    planted: Callable, batch_of: Callable, part: str
) -> None:
    graph = planted()
    model = gtc_of(graph)
    model.loss(*batch_of(graph), *arguments(graph))[part].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.content_filter.encoders.parameters())
    assert model.user_emb.weight.grad is model.item_emb.weight.grad is None


def test_ranking_and_diffusion_losses_fall_in_training(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model, batch = gtc_of(graph, 16), batch_of(graph)

    def losses() -> Tensor:
        with torch.no_grad():
            runs = [model.loss(*batch, *arguments(graph), generator=seeded(s)) for s in range(5)]
        return torch.tensor([[run["ranking"], run["diffusion"]] for run in runs]).mean(dim=0)

    before = losses()
    train(model, graph, batch)
    assert (losses() < 0.8 * before).all()


@pytest.mark.parametrize("part", ["diffusion", "filter", "total_correlation"])
def test_a_loss_of_weight_zero_is_absent(planted: Callable, batch_of: Callable, part: str) -> None:
    graph = planted()
    expected = gtc_of(graph).loss(*batch_of(graph), *arguments(graph), generator=seeded())
    model = gtc_of(graph, loss_weights={part: 0.0})
    parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
    assert parts.keys() == expected.keys() - {part}
    assert {"ranking", "regularization"} <= parts.keys()
    assert parts["ranking"] == expected["ranking"]


def test_pairwise_alignment_is_the_mean_over_pairs(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    without_some_images(graph)
    weights = {"diffusion": 0.0, "filter": 0.0, "total_correlation": 0.5}
    parts = {"incomplete": ["image"], "alignment": PairwiseInfoNCE()}
    model, two = gtc_of(graph, loss_weights=weights, **parts), TotalCorrelationLoss()
    batch = batch_of(graph)
    parts = model.loss(*batch, *arguments(graph), generator=seeded())
    rows = batch[1].unique()
    filtered = model.filter_content(*arguments(graph))
    views = [model.item_emb(rows), *(f.x_hat[rows] for f in filtered.values())]
    masks = [None, *(graph.features.get(f"has_{name}") for name in filtered)]
    masks = [mask if mask is None else mask[rows] for mask in masks]
    generator, losses = seeded(), []
    for a in range(len(views)):
        for b in range(a + 1, len(views)):
            pair = [views[a], views[b]], [masks[a], masks[b]]
            losses.append(two(*pair, generator))
    assert len(losses) == len(views) * (len(views) - 1) / 2 > 1
    torch.testing.assert_close(parts["total_correlation"], 0.5 * sum(losses) / len(losses))


@pytest.mark.parametrize(
    "name", ["denoisers.image.lin_gate.bias", "denoisers.image.lin_h.bias", "lin_modality.bias"]
)
def test_gradients_equal_finite_differences(
    planted: Callable, batch_of: Callable, name: str
) -> None:
    graph = planted()
    model = gtc_of(graph, 4).double()
    # Of the users those in the batch learn: for finite differences, all of them.
    assert batch_of(graph)[0].unique().numel() == graph.num_users
    features = {name: x.double() for name, x in graph.features.items()}
    csr = model.csr_graph(*arguments(graph)[1:])

    def loss(weight: Tensor) -> Tensor:
        with torch.nn.utils.stateless._reparametrize_module(
            model, {f"content_filter.{name}": weight}
        ):
            parts = model.loss(*batch_of(graph), features, csr, generator=seeded())
        return torch.stack(list(parts.values())).sum()

    weight = model.content_filter.get_parameter(name).detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (weight,))


def test_rows_that_lack_content_are_aligned_with_nothing(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model, mask = gtc_of(graph, incomplete=["image"]), without_some_images(graph)
    user, pos, neg = batch_of(graph)
    pos = torch.cat([pos, pos[:4]])  # some items stand twice
    batch = (torch.cat([user, user[:4]]), pos, torch.cat([neg, neg[:4]]))
    given = {"generator": torch.Generator()}
    weights = graph.edge_weight_dict
    model.loss_weights |= {"diffusion": 0.0, "filter": 0.0, "total_correlation": 1.0}
    given["generator"].manual_seed(0)
    parts = model.loss(*batch, graph.features, graph.edge_index_dict, weights, **given)
    items = pos.unique()
    assert not mask[items].all() and items.numel() < pos.numel()
    filtered = model.filter_content(graph.features, graph.edge_index_dict, weights)
    rows = items[mask[items]]
    views = [model.item_emb(rows), *(f.x_hat[rows] for f in filtered.values())]
    given["generator"].manual_seed(0)
    torch.testing.assert_close(parts["total_correlation"], model.alignment(views, **given))
