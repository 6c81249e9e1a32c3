r"""What a user's filter keeps and drops, against the derivative of each item's content."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.explain import Explainer, FilterDirections
from gtc_pyg.explain.directions import filter_directions
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.models import GTC
from tests.models.graphs import gtc_of


def make(graph: SimpleNamespace, **kwargs: Any) -> tuple[GTC, Explainer]:
    model = gtc_of(graph, **{"start_step": 400, **kwargs})
    for denoiser in model.content_filter.denoisers.values():
        if denoiser.lin_gate is not None:  # gates that differ
            denoiser.lin_gate.weight.data *= 10
    return model, make_again(model, graph)


def make_again(model: GTC, graph: SimpleNamespace) -> Explainer:
    return Explainer(model, graph.features, graph.edge_index_dict, graph.edge_weight_dict)


def jacobians(model: GTC, graph: SimpleNamespace, name: str, gate: Tensor | None) -> Tensor:
    r"""Mean over items of how filtered content answers to raw content, item by item."""
    filtered = model.filter_content(graph.features, graph.edge_index_dict)[name]
    encoder, denoiser = model.content_filter.encoders[name], model.content_filter.denoisers[name]
    sampler = model.content_filter.sampler
    schedule, times = sampler.schedule, sampler.times
    item_gates = None
    if filtered.gate is not None:
        csr = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
        item_gates = 1 + csr.mean_of_users(filtered.gate - 1)
    present = graph.features.get(f"has_{name}", torch.ones(graph.num_items, dtype=torch.bool))
    total, rows = torch.zeros(()), present.nonzero().view(-1).tolist()
    for i in rows:

        def content(raw: Tensor, i: int = i) -> Tensor:
            x = F.layer_norm(encoder.lin(raw), (8,)).view(1, -1)
            signal = [schedule.alpha_bar[t].float().sqrt() for t in times[:-1]]
            x_t = signal[0] * x
            for t, t_next in pairwise(times[:-1]):
                h = denoiser.hidden(x_t, t, filtered.cond[i : i + 1])
                of_item = None if item_gates is None else item_gates[i]
                x_t = schedule.step(x_t, t, t_next, denoiser.noise(h, of_item))
            h = denoiser.hidden(x_t, times[-2], filtered.cond[i : i + 1])
            noise = denoiser.noise(h, gate)
            return ((x_t - (1 - signal[-1] ** 2).sqrt() * noise) / signal[-1])[0]

        total = total + torch.autograd.functional.jacobian(content, graph.features[name][i])
    return total / len(rows)


@pytest.mark.parametrize(
    "switches",
    [{}, {"hidden_channels": 5, "start_step": 300}, {"num_sampling_steps": 3}],
    ids=str,
)
def test_directions_equal_the_definition(planted: Callable, switches: dict[str, Any]) -> None:
    graph = planted()
    model, explainer = make(graph, **switches)
    found = explainer.user(7).directions("image", k=3)
    gates = model.filter_content(graph.features, graph.edge_index_dict)["image"].gate.detach()
    spread = graph.features["image"].std(dim=0, correction=0)
    mine, usual = (
        jacobians(model, graph, "image", g) * spread for g in (gates[7], gates.mean(dim=0))
    )
    total = usual.pow(2).sum()
    near = {"rtol": 1e-3, "atol": 1e-5}
    torch.testing.assert_close(found.strength, mine.pow(2).sum(0) / total, **near)
    torch.testing.assert_close(found.usual, usual.pow(2).sum(0) / total, **near)
    change = (mine.t() @ mine - usual.t() @ usual) / total
    value = torch.linalg.eigvalsh(change)
    torch.testing.assert_close(found.kept_by, value.flip(0)[:3], **near)
    torch.testing.assert_close(found.dropped_by, value[:3], **near)
    for vector, by in zip(
        [*found.kept, *found.dropped], [*found.kept_by, *found.dropped_by], strict=True
    ):
        torch.testing.assert_close(vector.norm(), torch.tensor(1.0))
        torch.testing.assert_close(vector @ change @ vector, by, **near)
        assert vector[vector.abs().argmax()] > 0
    assert found.kept_by[0] > 1e-3 and found.dropped_by[0] < -1e-3
    torch.testing.assert_close(
        found.weight, explainer.components.filtered["image"].weight[7].detach()
    )


def test_all_directions_add_up_to_the_change_of_the_columns(planted: Callable) -> None:
    found = make(planted())[1].user(3).directions("text", k=99)
    torch.testing.assert_close(found.usual.sum(), torch.tensor(1.0))
    change = (found.strength - found.usual).sum()
    torch.testing.assert_close(
        found.kept_by.sum() + found.dropped_by.sum(), change, atol=1e-4, rtol=0
    )


def test_a_column_that_no_weight_reads_has_no_strength(planted: Callable) -> None:
    graph = planted()
    model, _ = make(graph)
    model.content_filter.encoders["image"].lin.weight.data[:, 3] = 0
    found = make_again(model, graph).user(0).directions("image")
    assert found.strength[3].abs() < 1e-10 and found.usual[3].abs() < 1e-10
    assert (found.kept[:, 3].abs() < 1e-4).all() and (found.strength[:3] > 1e-4).all()


@pytest.mark.parametrize("kind", ["item", "neighbors", "gates alike"])
def test_a_filter_like_everybodys_keeps_and_drops_nothing(planted: Callable, kind: str) -> None:
    graph = planted()
    condition = kind if kind in ("item", "neighbors") else "user"
    model, explainer = make(graph, condition=condition)
    if condition == "user":
        model.content_filter.denoisers["image"].lin_gate.weight.data.zero_()
        explainer = make_again(model, graph)
    found = explainer.user(5).directions("image")
    assert found.kept.shape == found.dropped.shape == (0, 32)
    torch.testing.assert_close(found.strength, found.usual, rtol=1e-4, atol=1e-7)


def test_a_filter_that_is_shut_drops_what_others_have() -> None:
    """One column, one channel of the trunk: shut for user 1, it is what user 1 does not get."""
    edges = torch.tensor([[0, 1], [0, 1]])
    edges = {USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)}
    graph = SimpleNamespace(num_users=2, num_items=2, in_channels={"image": 3})
    graph.edge_index_dict, graph.edge_weight_dict = edges, None
    model = gtc_of(graph, 4, num_item_layers=0)
    explainer = Explainer(model, {"image": torch.randn(2, 3)}, edges)
    known = explainer.response("image")
    own = explainer.user(0).filtered["image"]
    # Content that gates leave alone counts nothing here: base answers to nothing.
    factor = known.factor.clone()
    factor[:, :4] = 0
    known = known._replace(factor=factor, gate=torch.ones(4))
    found: FilterDirections = filter_directions(known, own._replace(gate=torch.zeros(1, 4)), 9)
    assert found.kept.numel() == 0 and (found.strength == 0).all()
    torch.testing.assert_close(found.dropped_by.sum(), torch.tensor(-1.0))
    found = filter_directions(known, own._replace(gate=torch.full((1, 4), 2.0)), 9)
    torch.testing.assert_close(found.strength, 4 * found.usual)
    assert found.dropped.numel() == 0
    torch.testing.assert_close(found.kept_by.sum(), torch.tensor(3.0))


def test_absent_content_does_not_count(planted: Callable) -> None:
    graph = planted()
    graph.features["has_image"] = torch.arange(40) % 4 > 0
    found = []
    for value in (0.0, torch.nan):
        graph.features["image"][::4] = value
        _, explainer = make(graph, incomplete=["image"])
        found.append(explainer.user(2).directions("image"))
    torch.testing.assert_close(found[0].strength, found[1].strength)
    gate = explainer.components.filtered["image"].gate[2].detach()
    graph.features["image"][::4] = 0.0
    mine = jacobians(explainer.model, graph, "image", gate)
    mine = mine * graph.features["image"][graph.features["has_image"]].std(dim=0, correction=0)
    expected = mine.pow(2).sum(0) / mine.pow(2).sum()
    strength = found[0].strength / found[0].strength.sum()
    torch.testing.assert_close(strength, expected, rtol=1e-3, atol=1e-5)


def test_a_user_given_by_their_items_has_their_directions(planted: Callable) -> None:
    graph = planted()
    model, explainer = make(graph)
    user, item = graph.edge_index_dict["user", "rates", "item"]
    given = explainer.user(item[user == 4], model.user_emb.weight[4]).directions("text")
    torch.testing.assert_close(given.strength, explainer.user(4).directions("text").strength)
    with torch.inference_mode():
        again = make_again(model, graph).user(4).directions("text")
    torch.testing.assert_close(given.strength, again.strength)


def test_nothing_is_changed_and_no_gradient_passes(planted: Callable, unchanged: Callable) -> None:
    graph = planted()
    model, explainer = make(graph)
    model.requires_grad_(False)
    with unchanged(model, graph.features):
        found = explainer.user(1).directions("image")
    assert not any(x.requires_grad for x in found)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match=r"'k' must be at least 0 \(got -1\)"):
        explainer.user(1).directions("image", k=-1)
