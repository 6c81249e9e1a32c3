r"""The layer on the shelf is the layer in the model: a GTC filters by its denoisers alone."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import gtc_pyg
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.functional import spmm
from gtc_pyg.graph import csr_graph
from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.models import GTC
from gtc_pyg.models.gtc import filtered_content, user_view
from gtc_pyg.nn import Condition, ConditionalDenoiser
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph
from tests.models.filters import CONDITIONS
from tests.models.graphs import arguments, gtc_of, seeded
from tests.models.gtc.dense import dense

WITH_MESSAGES = ["neighbors", "user"]


def counted(model: GTC) -> Counter[str]:
    r"""Counts propagations of each modality's denoiser from now on, those of copies too."""
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable:
        return lambda module, inputs: calls.update([name])

    for name, denoiser in model.content_filter.denoisers.items():
        denoiser.register_propagate_forward_pre_hook(count(name))
    return calls


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    r"""Shapes of the matrices that something outside of a denoiser multiplies with."""
    shapes: list[tuple[int, ...]] = []

    def record(adj: Tensor, transposed: Tensor, x: Tensor) -> Tensor:
        shapes.append(tuple(adj.shape))
        return spmm(adj, transposed, x)

    for module in (csr_graph, filtered_content, user_view):
        monkeypatch.setattr(module, "spmm", record)
    return shapes


@pytest.mark.parametrize("condition", CONDITIONS)
def test_forward_passes_messages_once_per_modality(
    planted: Callable, elsewhere: list, condition: str
) -> None:
    graph = planted("image", "text", "sound")
    model = gtc_of(graph, condition=condition, num_sampling_steps=3)
    calls = counted(model)
    model(*arguments(graph))
    assert calls == ({} if condition == "item" else dict.fromkeys(graph.in_channels, 1))
    assert elsewhere and (graph.num_items, graph.num_users) not in elsewhere


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("condition", CONDITIONS)
def test_loss_passes_messages_once_per_modality(
    planted: Callable, batch_of: Callable, elsewhere: list, condition: str, training: bool
) -> None:
    graph = planted()
    model, batch = gtc_of(graph, condition=condition), tuple(x[:30] for x in batch_of(graph))
    csr = model.csr_graph(*arguments(graph)[1:])
    csr = model.training_graph(csr) if training else csr
    calls = counted(model)
    for step in (1, 2):
        model.loss(*batch, graph.features, csr)
        assert calls == ({} if condition == "item" else dict.fromkeys(graph.in_channels, step))
    assert elsewhere and (graph.num_items, graph.num_users) not in elsewhere


@pytest.mark.parametrize("condition", CONDITIONS)
def test_new_users_and_items_meet_the_same_layer(
    planted: Callable, elsewhere: list, condition: str
) -> None:
    dataset = PlantedPreferences(60, 40, mean_degree=8.0, transform=ItemKNNGraph(k=4))
    model = gtc_of(planted(), condition=condition)
    calls = counted(model)
    recommender = Recommender(model, dataset)
    for use in (
        lambda: recommender.fold_in([3, 5, 8]),
        lambda: recommender.add_items([99], {m: x[:1] for m, x in dataset.features.items()}),
    ):
        calls.clear()
        use()
        assert calls.keys() == (set() if condition == "item" else {"image", "text"})
    assert elsewhere and (40, 60) not in elsewhere


class OtherCondition(ConditionalDenoiser):
    def encode_condition(self, *args: Any, **kwargs: Any) -> Condition:
        cond = super().encode_condition(*args, **kwargs)
        gate = None if cond.gate is None else 0.5 * cond.gate
        return cond._replace(emb=3 * cond.emb, gate=gate)


class OtherGate(ConditionalDenoiser):
    def gate(self, x_user: Tensor) -> Tensor:
        return 3 * super().gate(x_user) - 1


class OtherHidden(ConditionalDenoiser):
    def hidden(self, x_t: Tensor, t: Tensor | int, cond: Tensor) -> Tensor:
        return 2 * super().hidden(x_t, t, cond).tanh()


class OtherMap(ConditionalDenoiser):
    def noise_map(self) -> tuple[Tensor, Tensor]:
        weight, bias = super().noise_map()
        return 2 * weight, bias - 1


class OtherMessage(ConditionalDenoiser):
    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        return 3 * super().message(x_j, edge_weight)


class NoMessage(ConditionalDenoiser):
    def message(self, x_j: Tensor, edge_weight: Tensor | None) -> Tensor:
        return 0 * x_j


OTHERS = [OtherCondition, OtherGate, OtherHidden, OtherMap, OtherMessage, NoMessage]
BY_USERS = (OtherGate, OtherMessage, NoMessage)


def replace(model: GTC, cls: type[ConditionalDenoiser]) -> None:
    r"""Puts denoisers of another class in the place of a model's, with their weights."""
    denoisers = model.content_filter.denoisers
    for name, old in denoisers.items():
        sizes = old.channels, old.cond_channels, old.hidden_channels
        denoisers[name] = cls(*sizes, old.condition, old.aggr)
        denoisers[name].load_state_dict(old.state_dict())


def filtered_by_equation(
    model: GTC, graph: SimpleNamespace
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    r"""Content for items, for the user of each interaction, and weights, edge by edge."""
    part, (user, item) = model.content_filter, graph.edge_index_dict[USER_TO_ITEM]
    schedule, times = part.sampler.schedule, part.sampler.times
    e_user, e_item = (F.normalize(e.weight, dim=-1) for e in (model.user_emb, model.item_emb))
    mean = torch.zeros(graph.num_users, graph.num_items)
    mean[user, item] = 1
    mean = mean / mean.sum(1, keepdim=True)
    ids = F.normalize(e_user) + F.normalize(mean @ e_item)
    views, out = [], {}
    weight = 1 / torch.bincount(item, minlength=graph.num_items)[item]
    for name in graph.in_channels:
        x = part.encoders[name](graph.features[name])
        view = torch.zeros(graph.num_users, x.size(1))
        if part.condition != "item":
            seen = [F.layer_norm(y, y.shape[1:]) for y in (mean @ x, ids)]
            view = part.views[name](torch.cat(seen, dim=1))
        views.append(view)
        denoiser = part.denoisers[name]
        edges = torch.stack([user, item])
        cond = denoiser.encode_condition((view, F.layer_norm(e_item, x.shape[1:])), edges, weight)
        w, b = denoiser.noise_map()
        x_t = schedule.alpha_bar[times[0]].float().sqrt() * x
        for t, t_next in pairwise(times):
            h = denoiser.hidden(x_t, t, cond.emb)
            gated = h if cond.gate is None else cond.gate * h
            last, x_t = x_t, schedule.step(x_t, t, t_next, gated @ w.t() + b)
        h = h[item] if cond.user_gate is None else cond.user_gate[user] * h[item]
        out[name] = x_t, schedule.step(last[item], times[-2], 0, h @ w.t() + b)
    if part.lin_modality is None:
        weights = (2 * part.modality_bias.sigmoid()).expand(graph.num_users, -1)
    else:
        weights = 2 * part.lin_modality(torch.cat(views, dim=1)).sigmoid()
    return {name: (*out[name], weights[:, m]) for m, name in enumerate(out)}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("cls", OTHERS)
def test_another_denoiser_changes_forward_by_the_equation(
    planted: Callable, cls: type[ConditionalDenoiser], condition: str
) -> None:
    graph = planted()
    settings = {"condition": condition, "strength": 0.5, "hidden_channels": 5}
    model = gtc_of(graph, **settings, num_sampling_steps=2, start_step=300)
    before = model(*arguments(graph))
    replace(model, cls)
    out = model(*arguments(graph))
    expected = dense(model, graph, [*filtered_by_equation(model, graph).values()])
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    ignored = cls in BY_USERS and (
        condition == "item" or (condition, cls) == ("neighbors", OtherGate)
    )
    for a, b in zip(out, before, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-3) == ignored


@pytest.mark.parametrize("condition", WITH_MESSAGES)
@pytest.mark.parametrize("cls", OTHERS)
def test_losses_of_another_denoiser_are_those_of_all_users(
    planted: Callable, batch_of: Callable, cls: type[ConditionalDenoiser], condition: str
) -> None:
    graph = planted()
    model, batch = gtc_of(graph, condition=condition), tuple(x[:40] for x in batch_of(graph))
    replace(model, cls)
    features, csr = graph.features, model.csr_graph(*arguments(graph)[1:])
    part, every = model.content_filter, model.filter_content(features, csr)
    user, pos, neg = batch
    users, row = user.unique(return_inverse=True)
    assert users.numel() < graph.num_users
    found = []
    for filtered, at in ((every, user), (model.filter_content(features, csr, user=users), row)):
        model.zero_grad()
        content = part.mean_content(filtered, csr)
        losses = [
            part.diffusion_loss(filtered, features, at, pos, seeded()),
            part.ranking_loss(filtered, content, features, csr, at, pos, neg),
        ]
        # What items are made of, as the other users have them, has its own test.
        sum(losses).backward()
        of_items = (part.encoders, [part.denoisers[m].lin_x for m in part.denoisers])
        grads = [
            p.grad
            for modules in of_items
            for m in (modules.values() if hasattr(modules, "values") else modules)
            for p in m.parameters()
        ]
        found.append([*losses, *grads])
    for all_users, some in zip(*found, strict=True):
        torch.testing.assert_close(some, all_users, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("cls", OTHERS)
def test_another_denoiser_changes_the_diffusion_loss_by_equation(
    planted: Callable, batch_of: Callable, cls: type[ConditionalDenoiser], condition: str
) -> None:
    graph = planted()
    weights = {"diffusion": 0.7, "filter": 0.0, "total_correlation": 0.0}
    model, (user, pos, neg) = (
        gtc_of(graph, condition=condition, loss_weights=weights),
        batch_of(graph),
    )
    replace(model, cls)
    found = model.loss(user, pos, neg, *arguments(graph), generator=seeded())["diffusion"]
    part, generator, errors = model.content_filter, seeded(), []
    user, pos = user[: part.loss_batch_size], pos[: part.loss_batch_size]
    filtered = model.filter_content(*arguments(graph))
    t = part.sampler.schedule.sample_times(2 * len(pos), generator).view(2, -1)
    noise = part.sampler.schedule.sample_noise(torch.zeros(2, len(pos), 8), generator)
    for m, (name, f) in enumerate(filtered.items()):
        denoiser, level = part.denoisers[name], part.sampler.schedule.alpha_bar[t[m]].float()
        x_t = level.sqrt().view(-1, 1) * f.x[pos] + (1 - level).sqrt().view(-1, 1) * noise[m]
        h, (w, b) = denoiser.hidden(x_t, t[m], f.cond[pos]), denoiser.noise_map()
        h = h if f.gate is None else f.gate[user] * h
        errors.append((h @ w.t() + b - noise[m]).pow(2).mean())
    torch.testing.assert_close(found, 0.7 * torch.stack(errors).mean())


@pytest.mark.parametrize("cls", [ConditionalDenoiser, OtherMessage])
def test_users_learn_from_the_messages_of_a_subclass(planted: Callable, cls: type) -> None:
    graph = planted()
    model = gtc_of(graph)
    replace(model, cls)
    csr, part, grads = model.csr_graph(*arguments(graph)[1:]), model.content_filter, []
    users = torch.arange(graph.num_users)
    for asked in (None, users, users[::2], users[1::2]):
        model.zero_grad()
        filtered = model.filter_content(graph.features, csr, user=asked)
        sum(f.x_hat.pow(3).sum() for f in filtered.values()).backward()
        grads.append(torch.cat([p.grad.flatten() for p in part.views.parameters()]))
    whole, named, *halves = grads
    assert whole.abs().sum() > 0
    torch.testing.assert_close(named, whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sum(halves), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("condition", WITH_MESSAGES)
@pytest.mark.parametrize("cls", OTHERS)
def test_new_users_and_items_are_those_of_another_denoiser(
    planted: Callable, cls: type[ConditionalDenoiser], condition: str
) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    edges = edges[:, edges[1] > 1]
    graph.edge_index_dict |= {USER_TO_ITEM: edges, ("item", "rev_rates", "user"): edges.flip(0)}
    model = gtc_of(graph, condition=condition, num_item_layers=0, strength=0.5)
    replace(model.eval(), cls)
    with torch.no_grad():
        user_emb, item_emb = model(*arguments(graph))
        embedder = model.user_embedder(*arguments(graph))
        found = embedder(edges, graph.num_users, model.user_emb.weight)
        torch.testing.assert_close(found, user_emb, rtol=1e-4, atol=1e-5)
        adapter = model.item_adapter(graph.features, model.csr_graph(*arguments(graph)[1:]))
        new = {name: x[:2] for name, x in graph.features.items()}
        own = adapter.own(new, adapter.item_id[:2])
        torch.testing.assert_close(own, item_emb[:2], rtol=1e-4, atol=1e-5)


def private_members(source: str) -> list[str]:
    r"""Weights of a layer and private members that belong to anything but ``self``."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Attribute) or node.attr in ("_replace", "_asdict"):
            continue
        private = node.attr.startswith("_") and not node.attr.endswith("__")
        of_self = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        if (private or node.attr.startswith("lin_")) and not of_self:
            found.append(ast.unparse(node))
    return found


ROOT = Path(gtc_pyg.__file__).parent
FILES = [
    path
    for folder in ("models/gtc", "imputation", "inductive")
    for path in (ROOT / folder).glob("*.py")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_member_of_a_layer_is_used(path: Path) -> None:
    assert private_members(path.read_text()) == []


def test_private_members_are_found() -> None:
    source = "f(self.denoiser.lin_out)\nx._replace(a=d._check)\nself._own + self.lin_modality"
    assert private_members(source) == ["self.denoiser.lin_out", "d._check"]
    assert len(FILES) > 8
