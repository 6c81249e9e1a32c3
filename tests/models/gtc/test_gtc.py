from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from gtc_pyg.evaluation import Ranker
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import GTC, ContentFilter, ItemBias, SpectralHead
from gtc_pyg.models.registry import build_model, settings_of
from gtc_pyg.nn import BPR, SampledSoftmax, TotalCorrelationLoss, UniformGate
from tests.models.filters import CONDITIONS
from tests.models.graphs import (
    MODALITIES,
    arguments,
    gtc_of,
    seeded,
    twins,
    with_isolated_nodes,
    without_some_images,
)
from tests.models.gtc.dense import dense


@pytest.mark.parametrize("modalities", MODALITIES)
def test_embeddings_have_one_row_per_node(planted: Callable, modalities: tuple[str, ...]) -> None:
    graph = planted(*modalities)
    user_emb, item_emb = gtc_of(graph)(*arguments(graph))
    assert user_emb.size(0) == graph.num_users
    assert item_emb.size(0) == graph.num_items
    assert user_emb.size(1) == item_emb.size(1)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_forward_and_loss_change_nothing(
    planted: Callable, batch_of: Callable, unchanged: Callable, condition: str
) -> None:
    graph = planted()
    without_some_images(graph)
    settings = {"condition": condition, "incomplete": ["image"]}
    model, batch = gtc_of(graph, **settings), batch_of(graph)
    keys = [list(mapping) for mapping in arguments(graph)]
    with unchanged(model, *arguments(graph), batch):
        model(*arguments(graph))
        model.loss(*batch, *arguments(graph), generator=seeded())
    assert [list(mapping) for mapping in arguments(graph)] == keys


@pytest.mark.parametrize("num_sampling_steps", [1, 3])
def test_inference_draws_nothing_and_keeps_nothing(
    planted: Callable, batch_of: Callable, num_sampling_steps: int
) -> None:
    graph = planted()
    model = gtc_of(graph, num_sampling_steps=num_sampling_steps)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    expected = model(*arguments(graph))
    assert torch.equal(torch.get_rng_state(), state)
    model.loss(*(ids[:5] for ids in batch_of(graph)), *arguments(graph))
    torch.manual_seed(2)
    for out in (model(*arguments(graph)), model.eval()(*arguments(graph))):
        assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_lists_do_not_depend_on_the_batch_size(planted: Callable, batch_size: int) -> None:
    graph = planted()
    with torch.no_grad():
        out = gtc_of(graph)(*arguments(graph))
    ranker = Ranker(graph.test, [graph.edge_index_dict[USER_TO_ITEM]], graph.num_users)
    batches = [ranker.rank(*out, users, 10) for users in ranker.users.split(batch_size)]
    assert torch.equal(torch.cat(batches), ranker.rank(*out, ranker.users, 10))


@pytest.mark.parametrize("condition", CONDITIONS)
def test_adjacency_forms_give_the_same(planted: Callable, to_adj: Callable, condition: str) -> None:
    graph = planted()
    sizes = {"user": graph.num_users, "item": graph.num_items}
    adjs = {
        key: to_adj(edges, sizes[key[0]], sizes[key[2]], graph.edge_weight_dict.get(key))
        for key, edges in graph.edge_index_dict.items()
    }
    model = gtc_of(graph, condition=condition)
    out = model(graph.features, adjs, graph.edge_weight_dict)
    torch.testing.assert_close(out, model(*arguments(graph)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(("num_layers", "num_item_layers"), [(1, 0), (2, 1), (3, 2)])
def test_forward_equals_the_dense_equation(
    planted: Callable, condition: str, num_layers: int, num_item_layers: int
) -> None:
    graph = planted()
    layers = {"num_layers": num_layers, "num_item_layers": num_item_layers}
    settings = {"condition": condition, "strength": 0.3, "ranking": BPR(scale=3.0)}
    model = gtc_of(graph, **layers, **settings, heads=[ItemBias()])
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    filtered = model.filter_content(*arguments(graph))
    content = [(f.x_hat, f.for_pairs(user, item), f.weight) for f in filtered.values()]
    z_user, z_item = dense(model, graph, content)
    bias = model.item_bias.weight
    z_user = torch.cat([3 * z_user, torch.ones(graph.num_users, 1)], dim=1)
    expected = z_user, torch.cat([z_item, bias], dim=1)
    torch.testing.assert_close(model(*arguments(graph)), expected)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_users_with_the_same_items_have_the_same_content(planted: Callable, condition: str) -> None:
    # Content so long that it alone decides.
    graph = twins(planted())
    model = gtc_of(graph, condition=condition, strength=1e4, user_ids=False)
    with torch.no_grad():
        user_emb, item_emb = model(*arguments(graph))
    score = user_emb[:3] @ item_emb.t()
    torch.testing.assert_close(score[0], score[1], rtol=1e-3, atol=1e-3 * score.abs().max().item())
    lists = score.topk(10, dim=1).indices
    assert torch.equal(lists[0], lists[1])
    assert not torch.equal(lists[0], lists[2])


def test_other_gates_alone_change_scores_and_lists(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph)
    scores = []
    for weight in (torch.zeros(8, 8), torch.eye(8)):
        for denoiser in model.content_filter.denoisers.values():
            denoiser.lin_gate.weight.data = weight
        with torch.no_grad():
            user_emb, item_emb = model(*arguments(graph))
        scores.append(user_emb @ item_emb.t())
    assert not torch.allclose(*scores, rtol=0, atol=1e-4)
    before, after = (score.topk(10, dim=1).indices for score in scores)
    assert (before != after).any(dim=1).sum() > 5


@pytest.mark.parametrize("nodes", ["users", "items"])
def test_relabelled_nodes_have_relabelled_embeddings(planted: Callable, nodes: str) -> None:
    graph = planted()
    model = gtc_of(graph)
    user_emb, item_emb = model(*arguments(graph))
    user, item = torch.arange(graph.num_users), torch.arange(graph.num_items)
    if nodes == "users":
        user = torch.randperm(graph.num_users, generator=seeded())
    else:
        item = torch.randperm(graph.num_items, generator=seeded())
    new = {"user": user.argsort(), "item": item.argsort()}
    edges = {
        key: torch.stack([new[key[0]][source], new[key[2]][target]])
        for key, (source, target) in graph.edge_index_dict.items()
    }
    with torch.no_grad():
        model.user_emb.weight.copy_(model.user_emb.weight[user])
        model.item_emb.weight.copy_(model.item_emb.weight[item])
    features = {name: x[item] for name, x in graph.features.items()}
    out = model(features, edges, graph.edge_weight_dict)
    torch.testing.assert_close(out, (user_emb[user], item_emb[item]), rtol=1e-5, atol=2e-6)


def test_nodes_without_interactions_get_finite_embeddings(
    planted: Callable, batch_of: Callable
) -> None:
    graph = with_isolated_nodes(planted())
    model = gtc_of(graph)
    assert all(x.isfinite().all() for x in model(*arguments(graph)))
    sum(model.loss(*batch_of(graph), *arguments(graph)).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_absent_content_is_never_read(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    present = without_some_images(graph)
    model, outs = gtc_of(graph, incomplete=["image"]), []
    for value in (0.0, 100.0, torch.nan):
        graph.features["image"][~present] = value
        parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
        outs.append([*model(*arguments(graph)), *parts.values()])
    assert all(x.isfinite().all() for x in outs[0])
    assert all(torch.equal(a, b) for out in outs[1:] for a, b in zip(out, outs[0], strict=True))


def test_without_item_layers_no_item_graph_is_needed(planted: Callable) -> None:
    graph = planted()
    expected = gtc_of(graph, num_item_layers=0)(*arguments(graph))
    del graph.edge_index_dict[SIMILAR_ITEMS]
    out = gtc_of(graph, num_item_layers=0)(*arguments(graph))
    torch.testing.assert_close(out, expected)


def test_the_whole_model_works_in_double_precision(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, heads=[SpectralHead(5), ItemBias()])
    single = model(*arguments(graph))
    model = model.double()
    features = {name: x.double() for name, x in graph.features.items()}
    csr = model.csr_graph(*arguments(graph)[1:])
    for args in ((features, *arguments(graph)[1:]), (features, csr)):
        out = model(*args)
        parts = model.loss(*batch_of(graph), *args, generator=seeded())
        assert all(x.dtype == torch.double for x in (*out, *parts.values()))
        for a, b in zip(out, single, strict=True):
            torch.testing.assert_close(a, b.double(), rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_is_near_single_precision(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model = gtc_of(graph)
    expected = model(*arguments(graph))
    losses = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        out = model(*arguments(graph))
        parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
    for a, b in zip(out, expected, strict=True):
        torch.testing.assert_close(a.float(), b, rtol=0, atol=0.02 * b.abs().max().item())
    for name, part in parts.items():
        torch.testing.assert_close(part.float(), losses[name], rtol=0.03, atol=1e-3)
    sum(parts.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle"])
def test_a_copy_gives_the_same_embeddings(planted: Callable, way: str) -> None:
    graph = planted()
    model = gtc_of(graph)
    if way == "state_dict":
        torch.manual_seed(1)
        copied = gtc_of(graph)
        torch.nn.init.normal_(copied.user_emb.weight)
        copied.load_state_dict(model.state_dict())
    elif way == "deepcopy":
        copied = copy.deepcopy(model)
    else:
        copied = pickle.loads(pickle.dumps(model))
    out = zip(copied(*arguments(graph)), model(*arguments(graph)), strict=True)
    assert all(torch.equal(a, b) for a, b in out)


def test_the_bare_constructor_is_the_recommended_model(planted: Callable) -> None:
    graph = planted()
    model = GTC(graph.num_users, graph.num_items, graph.in_channels)
    assert isinstance(model.ranking, SampledSoftmax)
    assert (model.ranking.num_negatives, model.ranking.scale) == (1024, 1.5)
    spectral, bias = model.heads
    assert isinstance(spectral, SpectralHead) and isinstance(bias, ItemBias)
    assert (spectral.channels, spectral.strength, model.edge_dropout) == (256, 1.5, 0.5)
    assert (model.content_filter.condition, model.content_filter.strength) == ("user", 0.3)
    assert isinstance(model.alignment, TotalCorrelationLoss)


def test_published_settings_can_be_changed_one_by_one(planted: Callable) -> None:
    graph = planted()
    sizes = graph.num_users, graph.num_items, graph.in_channels
    model = GTC.published(*sizes, loss_weights={"diffusion": 0.7, "total_correlation": 0.5})
    assert model.content_filter.denoiser("image").condition == "neighbors"
    weights = model.loss_weights
    assert (weights["diffusion"], weights["total_correlation"]) == (0.7, 0.5)
    signal = model.content_filter.sampler.schedule.alpha_bar  # from 1e-4 to 1e-2 in 600 steps
    assert signal.numel() == 601 and float(signal[1]) == pytest.approx(1 - 1e-4)
    assert float(signal[-1] / signal[-2]) == pytest.approx(1 - 1e-2)
    assert model.alignment.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert model.alignment.product_scale == "none"
    plain = GTC.published(*sizes)
    assert plain.loss_weights["filter"] == 0 and isinstance(plain.ranking, BPR)
    assert len(plain.heads) == plain.edge_dropout == 0


def test_published_settings_of_parts_are_those_of_the_model(planted: Callable) -> None:
    graph = planted()
    sizes = {"num_users": 60, "num_items": 40, "in_channels": graph.in_channels}
    built = build_model({"class": "GTC", **GTC.PUBLISHED}, **sizes)
    assert settings_of(built) == settings_of(GTC.published(**sizes))


def test_a_uniform_gate_counts_all_content_alike(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, fusion=UniformGate(), num_layers=0, num_item_layers=0)
    filtered = model.filter_content(*arguments(graph))
    e = F.normalize(model.item_emb.weight, dim=-1)
    views = [e, *(F.normalize(f.x_hat, dim=-1) for f in filtered.values())]
    torch.testing.assert_close(model(*arguments(graph))[1], e + sum(views) / len(views))


@pytest.mark.parametrize("num_item_layers", [0, 2])
def test_a_spectral_head_is_added_to_the_scores_unscaled(
    planted: Callable, num_item_layers: int
) -> None:
    graph = planted()
    settings = {"num_item_layers": num_item_layers, "ranking": BPR(scale=2.0)}
    model = gtc_of(graph, **settings, heads=[ItemBias()])
    both = gtc_of(graph, **settings, heads=[ItemBias(), SpectralHead(5, strength=0.7)])
    both.item_bias.load_state_dict(model.item_bias.state_dict())
    (user, item), (more_user, more_item) = (m(*arguments(graph)) for m in (model, both))
    assert more_user.size(1) == user.size(1) + 5
    csr, (head, _) = both.csr_graph(*arguments(graph)[1:]), both.heads
    added = head.users(csr) @ head.items(csr, num_item_layers).t()
    assert added.abs().mean() > 0.01
    torch.testing.assert_close(more_user @ more_item.t(), user @ item.t() + added)
    assert torch.equal(more_item[:, -1:], both.item_bias.weight)


def test_losses_do_not_see_a_spectral_head(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model, both = gtc_of(graph), gtc_of(graph, heads=[SpectralHead(5)])
    parts = [m.loss(*batch_of(graph), *arguments(graph), seeded()) for m in (model, both)]
    assert all(torch.equal(parts[0][name], parts[1][name]) for name in parts[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": {}}, "'in_channels' must name at least one modality"),
        ({"num_layers": -1}, r"'num_layers' must be at least 0 \(got -1\)"),
        ({"num_item_layers": -1}, r"'num_item_layers' must be at least 0 \(got -1\)"),
        ({"edge_dropout": 1.0}, r"'edge_dropout' must lie in \[0, 1\) \(got 1.0\)"),
        ({"alignment": "pairwise"}, r"'total_correlation', a module or None \(got 'pairwise'\)"),
        ({"fusion": "x"}, r"'fusion' must be a module or None \(got str\)"),
        ({"content_filter": "x"}, r"'content_filter' must be a ContentFilter or None \(got str\)"),
        ({"loss_weights": {"bpr": 1.0}}, r"'loss_weights' must name some of .*got \['bpr'\]"),
        ({"loss_weights": {"filter": -1.0}}, r"must be 0 or more at 'filter' \(got -1.0\)"),
        (
            {"content_filter": ContentFilter({"image": 4})},
            r"made for \{'image': 4\}, 'in_channels'",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_arguments_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GTC(**{"num_users": 2, "num_items": 2, "in_channels": {"image": 3}, **settings})


def test_an_empty_batch_is_named(planted: Callable) -> None:
    graph, none = planted(), torch.empty(0, dtype=torch.long)
    with pytest.raises(ValueError, match="'user' must hold at least one"):
        gtc_of(graph).loss(none, none, none, *arguments(graph))
