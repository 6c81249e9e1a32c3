r"""What a score is made of, against loops and dense products straight from the equations."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from gtc_pyg.explain import Explainer
from gtc_pyg.functional import normalize_rows
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import GTC, LightGCN
from tests.explain.scores import SETTINGS, assert_adds_up, embeddings, explainer_of, gtc_of


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_all_parts_add_up_to_the_score(planted: Callable, settings: dict[str, Any]) -> None:
    graph = planted()
    model = gtc_of(graph, **settings)
    user_emb, item_emb = embeddings(model, graph)
    explainer = explainer_of(model, graph)
    for user in (0, 17, 59):
        explained = explainer.user(user)
        for item in (0, 21, 39):
            assert_adds_up(explained.score_parts(item), user_emb[user] @ item_emb[item])


def dense(graph: SimpleNamespace, model: GTC) -> SimpleNamespace:
    r"""Normalised interactions, the item graph, and each source's propagated layers, all dense."""
    num_users, num_items = graph.num_users, graph.num_items
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    adj = torch.zeros(num_users + num_items, num_users + num_items, dtype=torch.double)
    adj[user, item + num_users] = adj[item + num_users, user] = 1
    degree = adj.sum(1).clamp(min=1)
    adj = adj / (degree.view(-1, 1) * degree).sqrt()
    similar = torch.zeros(num_items, num_items, dtype=torch.double)
    src, dst = graph.edge_index_dict[SIMILAR_ITEMS]
    similar[dst, src] = graph.edge_weight_dict[SIMILAR_ITEMS].double()
    filtered = model.filter_content(graph.features, graph.edge_index_dict)
    e_user, e_item = (normalize_rows(e.weight) for e in (model.user_emb, model.item_emb))
    content = [normalize_rows(f.x_hat) for f in filtered.values()]
    gate = model.fusion(e_item, content)[1]
    of_items = [
        (1 + gate[:, :1]) * e_item,
        *(gate[:, k + 1 : k + 2] * c for k, c in enumerate(content)),
    ]
    nobody = torch.zeros_like(e_user)
    layers = []  # [L + 1, S, U + I, D]
    x = torch.stack([torch.cat([e_user if k == 0 else nobody, c]) for k, c in enumerate(of_items)])
    for _ in range(model.num_layers + 1):
        layers.append(x.double())
        x = (adj @ x.double()).to(x)
    out = torch.stack(layers).mean(0)
    items = out[:, num_users:]
    smoothed = items
    for _ in range(model.num_item_layers):
        smoothed = similar @ smoothed
    return SimpleNamespace(
        adj=adj,
        similar=torch.linalg.matrix_power(similar, model.num_item_layers),
        layers=torch.stack(layers),
        users=out[:, :num_users],
        items=items,
        smoothed=items + smoothed,
        filtered=filtered,
        e_user=e_user.double(),
    )


@torch.no_grad()
def test_sources_and_past_items_equal_the_definition(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, scale=3.0, num_item_layers=2)
    known, explainer, num = dense(graph, model), explainer_of(model, graph), graph.num_users
    for u, i in ((3, 5), (20, 0)):
        past = (known.adj[u, num:] > 0).nonzero().view(-1)
        user = known.users[:, u].clone()
        via = {}
        for j in past.tolist():
            paths = known.layers[:-1].sum(0)[:, num + j]
            via[j] = known.adj[u, num + j] * paths / (model.num_layers + 1)
        for m, f in enumerate(known.filtered.values(), start=1):
            row = torch.full_like(past, u)
            x = f.for_pairs(row, past).double()
            p = 0.5 * f.weight[u].double() / x.mean(0).norm() * x / past.numel()
            user[m] += p.sum(0)
            for n, j in enumerate(past.tolist()):
                via[j][m] += p[n]
        item, parts = known.smoothed[:, i], explainer.user(u).score_parts(i)
        for k in range(3):
            expected = (user[k] @ item.sum(0) + user.sum(0) @ item[k]) / 2
            torch.testing.assert_close(
                parts.by_source[k].double(), 3 * expected, atol=1e-5, rtol=1e-4
            )
        assert sorted(parts.past_items.tolist()) == past.tolist()
        for j, values in zip(parts.past_items.tolist(), parts.past, strict=True):
            expected = via[j].sum(0) @ item.sum(0)
            torch.testing.assert_close(values.sum().double(), 3 * expected, atol=1e-5, rtol=1e-4)
        left = known.e_user[u] / (model.num_layers + 1) @ item.sum(0)
        torch.testing.assert_close(parts.own.sum().double(), 3 * left, atol=1e-5, rtol=1e-4)
        weight = known.similar[i].clone()
        back = weight[i].clone()  # over two layers the item reaches itself: that is its own
        weight[i] = 0
        assert back > 0
        assert sorted(parts.similar_items.tolist()) == (weight > 0).nonzero().view(-1).tolist()
        for r, values in zip(parts.similar_items.tolist(), parts.similar, strict=True):
            expected = weight[r] * user.sum(0) @ known.items[:, r].sum(0)
            torch.testing.assert_close(values.sum().double(), 3 * expected, atol=1e-5, rtol=1e-4)


def test_the_largest_come_first(planted: Callable) -> None:
    graph = planted()
    parts = explainer_of(gtc_of(graph), graph).user(4).score_parts(7)
    for values in (parts.past.sum(1), parts.similar.sum(1)):
        assert values.numel() > 2 and (values.diff() <= 0).all()


def test_lightgcn_by_hand() -> None:
    # User 0 has items 0 and 1, user 1 has item 1; one layer, so z = (e + neighbours) / 2.
    edges = torch.tensor([[0, 0, 1], [0, 1, 1]])
    model = LightGCN(2, 3, 1, num_layers=1)
    model.user_emb.weight.data = torch.tensor([[4.0], [8.0]])
    model.item_emb.weight.data = torch.tensor([[2.0], [6.0], [10.0]])
    given = {}, {USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)}
    explainer = Explainer(model, *given)
    parts = explainer.user(0).score_parts(0)
    # Item 0: (2 + 4 / sqrt(2)) / 2. User 0: 4 / 2, and 2 / (2 sqrt(2)) and 6 / (2 * 2) by items.
    z = 1 + 2**0.5
    torch.testing.assert_close(parts.own, torch.tensor([2 * z]))
    assert parts.past_items.tolist() == [1, 0]
    torch.testing.assert_close(parts.past, torch.tensor([[1.5 * z], [z / 2**0.5]]))
    torch.testing.assert_close(parts.score, torch.tensor((3.5 + 1 / 2**0.5) * z))
    torch.testing.assert_close(parts.itself, parts.by_source)
    assert parts.similar.shape == (0, 1)
    # Item 2 has no users: its own half, whatever the user is.
    of_item_2 = explainer.user(1).score_parts(2).score
    torch.testing.assert_close(of_item_2, torch.tensor(5 * (4 + 6 / 2**1.5)))


def test_who_has_one_item_owes_all_but_their_id_to_it(planted: Callable) -> None:
    graph = planted()
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    kept = (user != 2) | (item == item[user == 2][0])
    edges = graph.edge_index_dict[USER_TO_ITEM][:, kept]
    graph.edge_index_dict |= {USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)}
    parts = explainer_of(gtc_of(graph), graph).user(2).score_parts(9)
    assert parts.past_items.tolist() == [int(item[user == 2][0])]
    torch.testing.assert_close(parts.past[0], parts.by_source - parts.own)


class Weights(Module):
    r"""A gate that gives every item the same weights."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)

    def forward(self, x: Tensor, modalities: list[Tensor]) -> tuple[Tensor, Tensor]:
        weight = self.weights.expand(x.size(0), -1)
        parts = zip(weight.t(), [x, *modalities], strict=True)
        return x + sum(w.view(-1, 1) * part for w, part in parts), weight


def test_a_modality_without_weight_has_no_share(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph)
    model.fusion = Weights([0.5, 0.5, 0.0])
    model.content_filter.lin_modality.bias.data[1] = -1e4  # nobody listens to the text
    user_emb, item_emb = embeddings(model, graph)
    parts = explainer_of(model, graph).user(1).score_parts(2)
    assert_adds_up(parts, user_emb[1] @ item_emb[2])
    assert parts.sources == ("interactions", "image", "text")
    assert parts.share("text") == 0 and (parts.past[:, 2] == 0).all()
    assert parts.share("image") != 0
    assert parts.share("image") + parts.share("interactions") == pytest.approx(1)


def test_other_names_for_users_and_items_change_nothing(planted: Callable) -> None:
    graph, other = planted(), planted()
    model, copy = gtc_of(graph), gtc_of(graph)
    new_user, new_item = torch.randperm(60), torch.randperm(40)
    copy.user_emb.weight.data[new_user] = model.user_emb.weight.data
    copy.item_emb.weight.data[new_item] = model.item_emb.weight.data
    other.features = {name: x[new_item.argsort()] for name, x in graph.features.items()}
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    edges = torch.stack([new_user[user], new_item[item]])[:, torch.randperm(user.numel())]
    similar = new_item[graph.edge_index_dict[SIMILAR_ITEMS]]
    other.edge_index_dict = {
        USER_TO_ITEM: edges,
        ITEM_TO_USER: edges.flip(0),
        SIMILAR_ITEMS: similar,
    }
    for u, i in ((0, 3), (30, 39)):
        a = explainer_of(model, graph).user(u).score_parts(i)
        b = explainer_of(copy, other).user(int(new_user[u])).score_parts(int(new_item[i]))
        near = {"rtol": 1e-4, "atol": 1e-5}
        for name in ("score", "by_source", "own", "itself", "past", "similar"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), **near)
        assert new_item[a.past_items].tolist() == b.past_items.tolist()
        assert new_item[a.similar_items].tolist() == b.similar_items.tolist()


def test_a_user_without_items_has_no_history(planted: Callable) -> None:
    graph = planted()
    model = gtc_of(graph, heads=True)
    nothing, explainer = torch.empty(0, dtype=torch.long), explainer_of(model, graph)
    parts = explainer.user(nothing).score_parts(7)
    assert parts.past.shape == (0, 3)
    torch.testing.assert_close(parts.own, parts.by_source)
    parts = explainer.user(nothing, torch.zeros(8)).score_parts(7)
    assert (parts.by_source == 0).all()
    assert parts.score == parts.bias == model.item_bias.weight[7]


@pytest.mark.parametrize("settings", [{}, {"heads": True}], ids=str)
def test_an_item_given_by_its_embedding_is_the_users_side_alone(
    planted: Callable, settings: dict
) -> None:
    graph = planted()
    model = gtc_of(graph, **settings)
    user_emb, item_emb = embeddings(model, graph)
    explained = explainer_of(model, graph).user(5)
    row, given = explained.score_parts(6), explained.score_parts(item_emb[6])
    assert_adds_up(given, user_emb[5] @ item_emb[6])
    torch.testing.assert_close(given.bias, row.bias)
    # What past items say in all does not depend on how it is divided among the sources.
    order, other = row.past_items.argsort(), given.past_items.argsort()
    torch.testing.assert_close(given.past[other].sum(1), row.past[order].sum(1))
    # The user's own ID embedding is IDs alone.
    assert (given.own[1:] == 0).all() and given.own[0] != 0
    assert given.similar.shape == (0, 3)
