from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.evaluation import Ranker
from gtc_pyg.models import GTC
from gtc_pyg.models.graph_recommender import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM

CONDITIONS = ["item", "neighbors", "user"]
MODALITIES = [("image",), ("image", "text"), ("image", "text", "sound")]
FILTER_IN = ["messages", "score", "both"]


def model_of(graph: SimpleNamespace, hidden_channels: int = 8, **kwargs: Any) -> GTC:
    torch.manual_seed(0)
    return GTC(graph.num_users, graph.num_items, graph.in_channels, hidden_channels, **kwargs)


def arguments(graph: SimpleNamespace) -> tuple:
    return graph.features, graph.edge_index_dict, graph.edge_weight_dict


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def without_some_images(graph: SimpleNamespace) -> Tensor:
    r"""Marks 15 of the items as lacking their image."""
    graph.features["has_image"] = torch.randperm(graph.num_items, generator=seeded()) >= 15
    return graph.features["has_image"]


def twins(graph: SimpleNamespace) -> SimpleNamespace:
    r"""Gives user 1 the items of user 0."""
    edges = graph.edge_index_dict[USER_TO_ITEM]
    items = edges[1][edges[0] == 0]
    copies = torch.stack([torch.ones_like(items), items])
    edges = torch.cat([edges[:, edges[0] != 1], copies], dim=1)
    graph.edge_index_dict[USER_TO_ITEM], graph.edge_index_dict[ITEM_TO_USER] = edges, edges.flip(0)
    return graph


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
@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_every_parameter_receives_a_gradient(
    planted: Callable,
    batch_of: Callable,
    modalities: tuple[str, ...],
    condition: str,
    filter_in: str,
) -> None:
    graph = planted(*modalities)
    model = model_of(graph, condition=condition, filter_in=filter_in, filter_channels=5)
    sum(model.loss(*batch_of(graph), *arguments(graph)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_every_parameter_receives_a_gradient_where_content_is_missing(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    without_some_images(graph)
    model = model_of(graph, incomplete=["image"])
    assert model.filter.encoders["image"].missing is not None
    sum(model.loss(*batch_of(graph), *arguments(graph)).values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("modalities", MODALITIES)
def test_embeddings_have_one_row_per_node(planted: Callable, modalities: tuple[str, ...]) -> None:
    graph = planted(*modalities)
    user_emb, item_emb = model_of(graph)(*arguments(graph))
    assert user_emb.size(0) == graph.num_users
    assert item_emb.size(0) == graph.num_items
    assert user_emb.size(1) == item_emb.size(1)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_forward_and_loss_change_nothing(
    planted: Callable, batch_of: Callable, unchanged: Callable, condition: str, filter_in: str
) -> None:
    graph = planted()
    without_some_images(graph)
    settings = {"condition": condition, "filter_in": filter_in, "incomplete": ["image"]}
    model, batch = model_of(graph, **settings), batch_of(graph)
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
    model = model_of(graph, num_sampling_steps=num_sampling_steps)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    expected = model(*arguments(graph))
    assert torch.equal(torch.get_rng_state(), state)
    model.loss(*(ids[:5] for ids in batch_of(graph)), *arguments(graph))
    torch.manual_seed(2)
    for out in (model(*arguments(graph)), model.eval()(*arguments(graph))):
        assert all(torch.equal(a, b) for a, b in zip(out, expected, strict=True))


def test_a_generator_decides_the_loss(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model, batch = model_of(graph), batch_of(graph)

    def loss(seed: int) -> float:
        parts = model.loss(*batch, *arguments(graph), generator=seeded(seed))
        return sum(parts.values()).item()

    state = torch.get_rng_state()
    assert loss(0) == loss(0) != loss(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch_size", [1, 7])
@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_lists_do_not_depend_on_the_batch_size(
    planted: Callable, batch_size: int, filter_in: str
) -> None:
    graph = planted()
    with torch.no_grad():
        out = model_of(graph, filter_in=filter_in)(*arguments(graph))
    ranker = Ranker(graph.test, [graph.edge_index_dict[USER_TO_ITEM]], graph.num_users)
    batches = [ranker.rank(*out, users, 10) for users in ranker.users.split(batch_size)]
    assert torch.equal(torch.cat(batches), ranker.rank(*out, ranker.users, 10))


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("filter_in", ["messages", "both"])
def test_adjacency_forms_give_the_same(
    planted: Callable, to_adj: Callable, condition: str, filter_in: str
) -> None:
    graph = planted()
    sizes = {"user": graph.num_users, "item": graph.num_items}
    adjs = {
        key: to_adj(edges, sizes[key[0]], sizes[key[2]], graph.edge_weight_dict.get(key))
        for key, edges in graph.edge_index_dict.items()
    }
    model = model_of(graph, condition=condition, filter_in=filter_in)
    out = model(graph.features, adjs, graph.edge_weight_dict)
    torch.testing.assert_close(out, model(*arguments(graph)), rtol=0, atol=1e-6)


def dense(model: GTC, graph: SimpleNamespace) -> tuple[Tensor, Tensor, list[Tensor]]:
    r"""Users without content, items, and what each user looks for in each modality."""
    num_users, num_items = graph.num_users, graph.num_items
    filtered = model.filter_content(*arguments(graph))
    e_user, e_item = (F.normalize(e.weight, dim=-1) for e in (model.user_emb, model.item_emb))
    views = [e_item, *(F.normalize(f.x_hat, dim=-1) for f in filtered.values())]
    weight = torch.stack([(e_item * view).sum(-1) for view in views]).softmax(dim=0)
    fused = e_item + sum(w.view(-1, 1) * view for w, view in zip(weight, views, strict=True))

    a = torch.zeros(num_users + num_items, num_users + num_items)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    a[user, item + num_users] = a[item + num_users, user] = 1
    inv_sqrt = a.sum(1).pow(-0.5)
    a, ego = inv_sqrt.view(-1, 1) * a * inv_sqrt, torch.cat([e_user, fused])
    outs = [torch.matrix_power(a, l) @ ego for l in range(model.num_layers + 1)]
    z_user, z_item = (sum(outs) / len(outs)).split([num_users, num_items])
    if model.num_item_layers > 0:
        s = torch.zeros(num_items, num_items)
        source, target = graph.edge_index_dict[SIMILAR_ITEMS]
        s[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS]
        z_item = z_item + torch.matrix_power(s, model.num_item_layers) @ z_item

    looked_for = []
    for out in filtered.values():
        pairs = out.for_pairs(user, item)
        mean = torch.stack([pairs[user == u].mean(dim=0) for u in range(num_users)])
        p = model.content_strength * out.weight.view(-1, 1) * F.normalize(mean, dim=-1)
        looked_for.append(p)
    return z_user, z_item, looked_for


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize(("num_layers", "num_item_layers"), [(1, 0), (2, 1), (3, 2)])
def test_forward_equals_the_dense_equation_behind_the_filter(
    planted: Callable, condition: str, num_layers: int, num_item_layers: int
) -> None:
    graph = planted()
    layers = {"num_layers": num_layers, "num_item_layers": num_item_layers}
    settings = {"condition": condition, "score_scale": 3.0, "content_strength": 0.3}
    model = model_of(graph, **layers, **settings, item_bias=True)
    z_user, z_item, looked_for = dense(model, graph)
    bias = torch.nn.init.normal_(model.item_bias.weight)
    z_user = torch.cat([3 * (z_user + sum(looked_for)), torch.ones(graph.num_users, 1)], dim=1)
    expected = z_user, torch.cat([z_item, bias], dim=1)
    torch.testing.assert_close(model(*arguments(graph)), expected)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_inner_products_equal_the_score_pair_by_pair(
    planted: Callable, condition: str, filter_in: str
) -> None:
    graph = planted()
    settings = {"condition": condition, "filter_in": filter_in, "item_bias": True}
    settings |= {"num_sampling_steps": 2, "filter_channels": 5}
    model = model_of(graph, **settings, score_scale=2.0, content_strength=0.3)
    bias = torch.nn.init.normal_(model.item_bias.weight).view(-1)
    filtered = model.filter_content(*arguments(graph))
    z_user, z_item, looked_for = dense(model, graph)
    user_emb, item_emb = model(*arguments(graph))
    items = torch.arange(graph.num_items)
    for u in range(graph.num_users):
        score = z_item @ z_user[u]
        for out, p in zip(filtered.values(), looked_for, strict=True):
            if filter_in != "score":
                score = score + z_item @ p[u]
            if filter_in != "messages":
                seen = out.for_pairs(torch.tensor([u]), items)
                score = score + seen @ p[u]
        torch.testing.assert_close(item_emb @ user_emb[u], 2 * score + bias, rtol=0, atol=1e-5)


@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_the_ranking_loss_is_that_of_the_scores(
    planted: Callable, batch_of: Callable, filter_in: str
) -> None:
    graph = planted()
    settings = {"filter_in": filter_in, "num_negatives": 7, "item_bias": True}
    model, (user, pos, neg) = model_of(graph, **settings), batch_of(graph)
    torch.nn.init.normal_(model.item_bias.weight)
    user_emb, item_emb = model(*arguments(graph))
    score = user_emb @ item_emb.t()
    loss = model.loss(user, pos, neg, *arguments(graph))["ranking"]
    model.num_negatives = 1
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
    weights = {"diffusion_weight": 0.7, "filter_weight": 0.3}
    model, batch = model_of(graph, **weights, incomplete=["image"]), batch_of(graph)
    parts = model.loss(*batch, *arguments(graph), generator=seeded())
    csr = model.csr_graph(*arguments(graph)[1:])
    filtered = model.filter_content(*arguments(graph))
    content = model.filter.for_users(filtered, csr)
    diffusion = model.filter.diffusion_loss(filtered, graph.features, *batch[:2], seeded())
    ranking = model.filter.ranking_loss(filtered, content, graph.features, csr, *batch)
    torch.testing.assert_close(parts["diffusion"], 0.7 * diffusion)
    torch.testing.assert_close(parts["filter"], 0.3 * ranking)


def test_losses_on_content_look_at_the_first_interactions_of_a_batch(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    batch = batch_of(graph)
    first = tuple(ids[:5] for ids in batch)
    few, whole = (model_of(graph, content_batch_size=size) for size in (5, 10_000))
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


@pytest.mark.parametrize("name", ["num_layers", "num_item_layers", "content_batch_size"])
def test_sizes_out_of_range_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=rf"'{name}' must be at least [01] \(got -1\)"):
        GTC(2, 2, {"image": 3}, **{name: -1})


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_users_with_the_same_items_are_told_the_same(
    planted: Callable, condition: str, filter_in: str
) -> None:
    # Content so long that it alone decides.
    graph = twins(planted())
    settings = {"condition": condition, "filter_in": filter_in, "content_strength": 1e4}
    settings["user_ids"] = False
    model = model_of(graph, **settings)
    with torch.no_grad():
        user_emb, item_emb = model(*arguments(graph))
    score = user_emb[:3] @ item_emb.t()
    torch.testing.assert_close(score[0], score[1], rtol=1e-3, atol=1e-3 * score.abs().max().item())
    lists = score.topk(10, dim=1).indices
    assert torch.equal(lists[0], lists[1])
    assert not torch.equal(lists[0], lists[2])


@pytest.mark.parametrize("filter_in", FILTER_IN)
def test_other_gates_alone_change_scores_and_lists_of_the_default_model(
    planted: Callable, filter_in: str
) -> None:
    graph = planted()
    model = model_of(graph, filter_in=filter_in)
    scores = []
    for weight in (torch.zeros(8, 8), torch.eye(8)):
        for denoiser in model.filter.denoisers.values():
            denoiser.lin_gate.weight.data = weight
        with torch.no_grad():
            user_emb, item_emb = model(*arguments(graph))
        scores.append(user_emb @ item_emb.t())
    assert not torch.allclose(*scores, rtol=0, atol=1e-4)
    before, after = (score.topk(10, dim=1).indices for score in scores)
    assert (before != after).any(dim=1).sum() > 5


@pytest.mark.parametrize("nodes", ["users", "items"])
@pytest.mark.parametrize("filter_in", ["messages", "both"])
def test_relabelled_nodes_have_relabelled_embeddings(
    planted: Callable, nodes: str, filter_in: str
) -> None:
    graph = planted()
    model = model_of(graph, filter_in=filter_in)
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


@pytest.mark.parametrize("filter_in", ["messages", "both"])
def test_nodes_without_interactions_get_finite_embeddings(
    planted: Callable, batch_of: Callable, filter_in: str
) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    edges = edges[:, (edges[0] > 2) & (edges[1] > 2)]
    graph.edge_index_dict[USER_TO_ITEM], graph.edge_index_dict[ITEM_TO_USER] = edges, edges.flip(0)
    model = model_of(graph, filter_in=filter_in)
    assert all(x.isfinite().all() for x in model(*arguments(graph)))
    sum(model.loss(*batch_of(graph), *arguments(graph)).values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_absent_content_is_never_looked_at(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    present = without_some_images(graph)
    model, outs = model_of(graph, incomplete=["image"]), []
    for value in (0.0, 100.0, torch.nan):
        graph.features["image"][~present] = value
        parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
        outs.append([*model(*arguments(graph)), *parts.values()])
    assert all(x.isfinite().all() for x in outs[0])
    assert all(torch.equal(a, b) for out in outs[1:] for a, b in zip(out, outs[0], strict=True))


def test_the_diffusion_loss_teaches_no_encoder_and_no_embedding(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model = model_of(graph)
    model.loss(*batch_of(graph), *arguments(graph))["diffusion"].backward()
    untaught = (model.filter.encoders, model.user_emb, model.item_emb)
    assert all(p.grad is None for module in untaught for p in module.parameters())
    assert all(p.grad.abs().sum() > 0 for p in model.filter.denoisers.parameters())


@pytest.mark.parametrize("part", ["filter", "total_correlation"])
def test_content_follows_the_embeddings_and_they_do_not_follow_it(
    planted: Callable, batch_of: Callable, part: str
) -> None:
    graph = planted()
    model = model_of(graph)
    model.loss(*batch_of(graph), *arguments(graph))[part].backward()
    assert all(p.grad.abs().sum() > 0 for p in model.filter.encoders.parameters())
    assert model.user_emb.weight.grad is model.item_emb.weight.grad is None


def test_ranking_and_diffusion_losses_fall_in_training(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model, batch = model_of(graph, 16), batch_of(graph)

    def losses() -> Tensor:
        with torch.no_grad():
            runs = [model.loss(*batch, *arguments(graph), generator=seeded(s)) for s in range(5)]
        return torch.tensor([[run["ranking"], run["diffusion"]] for run in runs]).mean(dim=0)

    before = losses()
    train(model, graph, batch)
    assert (losses() < 0.8 * before).all()


@pytest.mark.parametrize("part", ["diffusion", "filter", "total_correlation"])
def test_a_part_of_weight_zero_is_absent_and_the_others_are_as_before(
    planted: Callable, batch_of: Callable, part: str
) -> None:
    graph = planted()
    expected = model_of(graph).loss(*batch_of(graph), *arguments(graph), generator=seeded())
    model = model_of(graph, **{f"{part}_weight": 0.0})
    parts = model.loss(*batch_of(graph), *arguments(graph), generator=seeded())
    assert parts.keys() == expected.keys() - {part}
    assert {"ranking", "regularization"} <= parts.keys()
    assert parts["ranking"] == expected["ranking"]


def test_without_item_layers_no_item_graph_is_needed(planted: Callable) -> None:
    graph = planted()
    expected = model_of(graph, num_item_layers=0)(*arguments(graph))
    del graph.edge_index_dict[SIMILAR_ITEMS]
    out = model_of(graph, num_item_layers=0)(*arguments(graph))
    torch.testing.assert_close(out, expected)


def test_the_whole_model_works_in_double_precision(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    for filter_in in FILTER_IN:
        model = model_of(graph, filter_in=filter_in)
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


@pytest.mark.parametrize("filter_in", ["messages", "both"])
@pytest.mark.parametrize(
    "name", ["denoisers.image.lin_gate.bias", "denoisers.image.lin_h.bias", "lin_modality.bias"]
)
def test_gradients_of_the_summed_loss_equal_finite_differences(
    planted: Callable, batch_of: Callable, filter_in: str, name: str
) -> None:
    graph = planted()
    model = model_of(graph, 4, filter_in=filter_in).double()
    # Of the users those in the batch learn: for finite differences, all of them.
    assert batch_of(graph)[0].unique().numel() == graph.num_users
    features = {name: x.double() for name, x in graph.features.items()}
    csr = model.csr_graph(*arguments(graph)[1:])

    def loss(weight: Tensor) -> Tensor:
        with torch.nn.utils.stateless._reparametrize_module(model, {f"filter.{name}": weight}):
            parts = model.loss(*batch_of(graph), features, csr, generator=seeded())
        return torch.stack(list(parts.values())).sum()

    weight = model.filter.get_parameter(name).detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (weight,))


@pytest.mark.parametrize("filter_in", ["messages", "both"])
def test_bfloat16_autocast_is_near_single_precision(
    planted: Callable, batch_of: Callable, filter_in: str
) -> None:
    graph = planted()
    model = model_of(graph, filter_in=filter_in)
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
    model = model_of(graph)
    if way == "state_dict":
        copied = GTC(graph.num_users, graph.num_items, graph.in_channels, 8)
        copied.load_state_dict(model.state_dict())
    elif way == "deepcopy":
        copied = copy.deepcopy(model)
    else:
        copied = pickle.loads(pickle.dumps(model))
    out = zip(copied(*arguments(graph)), model(*arguments(graph)), strict=True)
    assert all(torch.equal(a, b) for a, b in out)


def test_wrong_arguments_are_named(planted: Callable) -> None:
    graph = planted()
    with pytest.raises(ValueError, match="'in_channels' must name at least one modality"):
        GTC(graph.num_users, graph.num_items, {})
    for kwargs in (
        {"num_sampling_steps": 0},
        {"num_sampling_steps": 11, "start_step": 10},
        {"start_step": 601, "num_steps": 600},
    ):
        with pytest.raises(ValueError, match=r"1 <= 'num_sampling_steps' <= 'start_step'"):
            model_of(graph, **kwargs)
    with pytest.raises(ValueError, match=r"'condition' must be one of .* \(got 'users'\)"):
        model_of(graph, condition="users")
    with pytest.raises(ValueError, match=r"'filter_in' must be .*'both' \(got 'scores'\)"):
        model_of(graph, filter_in="scores")


def test_wrong_content_is_named(planted: Callable) -> None:
    graph = planted()
    model = model_of(graph)
    with pytest.raises(ValueError, match=r"'features' lacks 'text' \(it has \['image'\]\)"):
        model({"image": graph.features["image"]}, *arguments(graph)[1:])
    without_some_images(graph)
    with pytest.raises(ValueError, match=r"lacks 'image' of \d+ items: .*incomplete="):
        model(*arguments(graph))
    del graph.features["has_image"]
    with pytest.raises(ValueError, match=r"'features' lacks 'has_image' \[.* 'incomplete'"):
        model_of(graph, incomplete=["image"])(*arguments(graph))
    for mask in (torch.ones(3, dtype=torch.bool), torch.ones(graph.num_items)):
        graph.features["has_image"] = mask
        with pytest.raises(ValueError, match=r"'has_image' as bool \[\d+\] \(got"):
            model(*arguments(graph))


def test_rows_that_lack_content_are_aligned_with_nothing(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model, mask = model_of(graph, incomplete=["image"]), without_some_images(graph)
    user, pos, neg = batch_of(graph)
    pos = torch.cat([pos, pos[:4]])  # some items stand twice
    batch = (torch.cat([user, user[:4]]), pos, torch.cat([neg, neg[:4]]))
    given = {"generator": torch.Generator()}
    weights = graph.edge_weight_dict
    settings = {"diffusion_weight": 0.0, "filter_weight": 0.0, "total_correlation_weight": 1.0}
    for name, value in settings.items():
        setattr(model, name, value)
    given["generator"].manual_seed(0)
    parts = model.loss(*batch, graph.features, graph.edge_index_dict, weights, **given)
    items = pos.unique()
    assert not mask[items].all() and items.numel() < pos.numel()
    filtered = model.filter_content(graph.features, graph.edge_index_dict, weights)
    rows = items[mask[items]]
    views = [model.item_emb(rows), *(f.x_hat[rows] for f in filtered.values())]
    given["generator"].manual_seed(0)
    torch.testing.assert_close(parts["total_correlation"], model.total_correlation(views, **given))


def test_an_empty_batch_and_too_few_layers_are_named(planted: Callable) -> None:
    graph = planted()
    none = torch.empty(0, dtype=torch.long)
    with pytest.raises(ValueError, match="'user' must hold at least one"):
        model_of(graph).loss(none, none, none, *arguments(graph))
    with pytest.raises(ValueError, match=r"'num_layers' must be at least 0 \(got -1\)"):
        model_of(graph, num_layers=-1)


def test_content_that_some_items_lack_is_asked_for_when_the_model_is_made(planted):
    data = planted("image", "text")
    model = GTC(data.num_users, data.num_items, data.in_channels)
    features = {**data.features, "has_text": torch.arange(data.num_items) > 2}
    with pytest.raises(ValueError, match=r"lacks 'text' of 3 items: .*incomplete=\['text'\]"):
        model(features, data.edge_index_dict, data.edge_weight_dict)
