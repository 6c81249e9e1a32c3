from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import FREEDOM, MGCN, GraphRecommender, ItemBias, LightGCN, SpectralHead
from gtc_pyg.nn import BPR
from tests.models.graphs import arguments, gtc_of, with_edges

MODELS: dict[str, dict[str, Any]] = {
    "lightgcn": {},
    "lightgcn-no-layers": {"num_layers": 0},
    "lightgcn-1": {"num_layers": 1},
    "lightgcn-3": {"num_layers": 3},
    "freedom": {},
    "freedom-0-2": {"num_layers": 0, "num_item_layers": 2},
    "mgcn": {},
    "mgcn-1-0": {"num_layers": 1, "num_item_layers": 0},
    "gtc": {},
    "gtc-item": {"condition": "item"},
    "gtc-neighbors": {"condition": "neighbors", "user_ids": False},
    "gtc-heads": {"heads": True, "ranking": 3.0, "hidden_channels": 5},
    "lightgcn-heads": {"heads": True, "ranking": 3.0},
    "freedom-heads": {"heads": True},
    "mgcn-heads": {"heads": True, "ranking": 0.5},
    "gtc-content-alone": {"user_ids": False, "num_sampling_steps": 3, "num_item_layers": 0},
    "gtc-no-layers": {"num_layers": 0, "num_item_layers": 2},
    "gtc-incomplete": {"incomplete": ("image",), "num_layers": 3},
}


def model_of(graph: SimpleNamespace, name: str = "gtc") -> GraphRecommender:
    r"""With weights drawn so that nothing that a user is made of is small."""
    kind, more = name.split("-")[0], dict(MODELS[name])
    if more.pop("heads", False):
        more["heads"] = [SpectralHead(5, 0.4, debiasing=0.7, regularization=0.1), ItemBias()]
    more["ranking"] = BPR(scale=more.get("ranking", 1.0))
    torch.manual_seed(0)
    if kind == "gtc":
        model: GraphRecommender = gtc_of(graph, **{"strength": 0.7, **more})
    else:
        content = [] if kind == "lightgcn" else [graph.in_channels]
        cls = {"lightgcn": LightGCN, "freedom": FREEDOM, "mgcn": MGCN}[kind]
        model = cls(graph.num_users, graph.num_items, *content, hidden_channels=8, **more)
        model.prepare(*arguments(graph)[1:], spectral_start=False)
    for _, _, table in model.tables():
        torch.nn.init.normal_(table.weight)
    if "incomplete" in more:
        graph.features["has_image"] = torch.arange(graph.num_items) % 3 > 0
    return model.eval()


def only(graph: SimpleNamespace, user: int) -> Tensor:
    r"""The interactions of one user, as those of the only new user."""
    edges = graph.edge_index_dict[USER_TO_ITEM]
    items = edges[1][edges[0] == user]
    return torch.stack([torch.zeros_like(items), items])


@pytest.mark.parametrize("modalities", [("image",), ("image", "text", "sound")])
@pytest.mark.parametrize("name", list(MODELS))
def test_a_known_users_items_and_id_give_that_user(
    planted: Callable, name: str, modalities: tuple[str, ...]
) -> None:
    graph = planted(*modalities)
    model = model_of(graph, name)
    user_emb, item_emb = model(*arguments(graph))
    embedder, own = model.user_embedder(*arguments(graph)), model.user_emb.weight
    edges = graph.edge_index_dict[USER_TO_ITEM]
    edges = edges[:, torch.randperm(edges.size(1))]
    out = embedder(edges, graph.num_users, own)
    torch.testing.assert_close(out, user_emb, atol=1e-5, rtol=1e-5)
    for user in range(0, graph.num_users, 20):
        one = embedder(only(graph, user), 1, own[user : user + 1])
        torch.testing.assert_close(one[0], user_emb[user], atol=1e-5, rtol=1e-5)
    assert not out.requires_grad and out.size(1) == item_emb.size(1)


@pytest.mark.parametrize("name", ["lightgcn", "mgcn", "gtc", "gtc-heads"])
def test_a_user_does_not_depend_on_the_other_new_users(planted: Callable, name: str) -> None:
    graph = planted()
    model = model_of(graph, name)
    embedder = model.user_embedder(*arguments(graph))
    edges = graph.edge_index_dict[USER_TO_ITEM]
    out = embedder(edges, graph.num_users)
    perm = torch.randperm(graph.num_users)
    position = torch.empty_like(perm)
    position[perm] = torch.arange(graph.num_users)
    shuffled = edges[:, torch.randperm(edges.size(1))]
    shuffled = torch.stack([position[shuffled[0]], shuffled[1]])
    torch.testing.assert_close(embedder(shuffled, graph.num_users), out[perm])
    for user in (0, 17, 59):
        torch.testing.assert_close(embedder(only(graph, user), 1)[0], out[user])


def test_interactions_that_stand_twice_count_once(planted: Callable) -> None:
    graph = planted()
    embedder = model_of(graph).user_embedder(*arguments(graph))
    edges = graph.edge_index_dict[USER_TO_ITEM]
    twice = torch.cat([edges, edges[:, ::3]], dim=1)
    assert torch.equal(embedder(twice, graph.num_users), embedder(edges, graph.num_users))


@pytest.mark.parametrize("name", ["lightgcn", "freedom", "mgcn", "gtc", "gtc-heads", "mgcn-heads"])
def test_a_user_without_items_is_the_mean_user(planted: Callable, name: str) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    graph = with_edges(graph, edges[:, edges[0] != 5])  # of whom nothing was learned
    model = model_of(graph, name)
    embedder = model.user_embedder(*arguments(graph))
    out = embedder(torch.empty(2, 0, dtype=torch.long), 3)
    assert out.isfinite().all() and torch.equal(out[0], out[1]) and torch.equal(out[0], out[2])
    start = model.user_emb.weight.detach()
    if name.startswith("gtc"):
        start = F.normalize(start)
    mean = torch.cat([start[:5], start[6:]]).mean(0)
    scale = model.ranking.scale / 3
    if not name.startswith("mgcn"):  # which adds what it fuses of nothing
        torch.testing.assert_close(out[0, :8], scale * mean)
    beside = embedder(torch.tensor([[1, 1], [0, 3]]), 3)
    torch.testing.assert_close(beside[[0, 2]], out[:2])
    assert (beside[1] - out[1]).abs().max() > 1e-3
    assert embedder(torch.empty(2, 0, dtype=torch.long), 0).shape == (0, out.size(1))


def test_ids_that_follow_from_the_items_are_predicted(planted: Callable) -> None:
    graph = planted()
    model = LightGCN(graph.num_users, graph.num_items, hidden_channels=8).eval()
    csr = model.csr_graph(graph.edge_index_dict)
    torch.nn.init.normal_(model.item_emb.weight)
    turn, shift = torch.randn(8, 8), torch.randn(8)
    with torch.no_grad():
        seen = F.normalize(csr.mean_of_items(F.normalize(model.item_emb.weight)))
        model.user_emb.weight.copy_(seen @ turn + shift)
        expected = model(*arguments(graph))[0]
    embedder = model.user_embedder(*arguments(graph))
    out = embedder(graph.edge_index_dict[USER_TO_ITEM], graph.num_users)
    # Ridge: the smallest penalty is a hundredth of the mean variance.
    assert F.cosine_similarity(out, expected).min() > 0.99


@pytest.mark.parametrize("name", ["lightgcn", "gtc"])
def test_it_is_as_good_as_training_for_users_left_out(
    planted: Callable, batch_of: Callable, name: str
) -> None:
    graph = planted()
    edges, held = graph.edge_index_dict[USER_TO_ITEM], torch.arange(0, graph.num_users, 6)
    out = torch.isin(edges[0], held)
    left = edges[:, out]
    graph = with_edges(graph, edges[:, ~out])
    model = model_of(graph, name).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    user, pos, neg = batch_of(graph)
    for _ in range(8):
        csr = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
        parts = model.loss(user, pos, neg, graph.features, csr)
        optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        optimizer.step()
    embedder = model.eval().user_embedder(*arguments(graph))
    position = torch.searchsorted(held, left[0])
    user_emb = embedder(torch.stack([position, left[1]]), held.numel())
    item_emb = model(*arguments(graph))[1]
    score = user_emb @ item_emb.t()
    mine = torch.zeros_like(score, dtype=torch.bool)
    mine[position, left[1]] = True
    pairs = list(zip(score, mine, strict=True))
    above = [float((s[m].view(-1, 1) > s[~m]).float().mean()) for s, m in pairs]
    assert sum(above) / len(above) > 0.8  # 0.5 by chance


def test_nothing_is_drawn_changed_or_learned(planted: Callable, unchanged: Callable) -> None:
    graph = planted()
    model, edges = model_of(graph).train(), graph.edge_index_dict[USER_TO_ITEM]
    state = torch.get_rng_state()
    with unchanged(model, graph.features, graph.edge_index_dict, [edges]):
        embedder = model.user_embedder(*arguments(graph))
        first = embedder(edges, graph.num_users)
        assert torch.equal(embedder(edges, graph.num_users), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_double_precision_stays(planted: Callable) -> None:
    graph = planted()
    model = model_of(graph).double()
    features = {name: x.double() for name, x in graph.features.items()}
    weights = {SIMILAR_ITEMS: graph.edge_weight_dict[SIMILAR_ITEMS].double()}
    embedder = model.user_embedder(features, graph.edge_index_dict, weights)
    out = embedder(graph.edge_index_dict[USER_TO_ITEM], graph.num_users, model.user_emb.weight)
    expected = model(features, graph.edge_index_dict, weights)[0]
    assert out.dtype == torch.double
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)  # means have float weights


@pytest.mark.parametrize(
    ("edges", "num_users", "message"),
    [
        ([[0], [40]], 1, "'edge_index' holds item 40, expected 0 to 39"),
        ([[0], [-1]], 1, "'edge_index' holds item -1"),
        ([[1], [0]], 1, "'edge_index' holds user 1, expected 0 to 0"),
        ([[0, 1]], 2, r"'edge_index' must be \[2, E\]"),
        ([[0.0], [1.0]], 1, r"'edge_index' must be \[2, E\] of whole numbers"),
        ([[0], [1]], -1, "'num_users' must be at least 0"),
    ],
)
def test_wrong_interactions_are_named(
    planted: Callable, edges: list, num_users: int, message: str
) -> None:
    graph = planted()
    embedder = model_of(graph).user_embedder(*arguments(graph))
    with pytest.raises(ValueError, match=message):
        embedder(torch.tensor(edges), num_users)


def test_what_it_cannot_be_made_of_is_named(planted: Callable) -> None:
    graph = planted()
    model, edges = model_of(graph), graph.edge_index_dict[USER_TO_ITEM]
    embedder = model.user_embedder(*arguments(graph))
    with pytest.raises(ValueError, match=r"'user_emb' must be \[2, 8\].*got \[1, 8\]"):
        embedder(only(graph, 0), 2, torch.zeros(1, 8))
    one = with_edges(graph, edges[:, edges[0] == 0])
    with pytest.raises(ValueError, match=r"interactions of at least two users.*\(got 1\)"):
        model.user_embedder(*arguments(one))
    with pytest.raises(NotImplementedError, match="Other cannot embed users"):
        type("Other", (GraphRecommender,), {})(60, 40).user_embedder(*arguments(planted()))
