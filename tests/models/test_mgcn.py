from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.evaluation import evaluate
from gtc_pyg.graph.csr_graph import (
    ITEM_TO_USER,
    SIMILAR_ITEMS,
    USER_TO_ITEM,
    CSRGraph,
    SampledNodes,
)
from gtc_pyg.loader import NegativeSampler, SubgraphLoader
from gtc_pyg.models import MGCN
from tests.models.graphs import MODALITIES, arguments, hetero_of, with_isolated_nodes


def model_of(graph: SimpleNamespace, **kwargs: Any) -> MGCN:
    torch.manual_seed(0)
    return MGCN(graph.num_users, graph.num_items, graph.in_channels, 8, **kwargs)


def loop(model: MGCN, graph: SimpleNamespace) -> tuple[list[Tensor], list[Tensor]]:
    r"""The equations of the docstring, node by node: behaviour and content of users, then items."""
    num_users, num_items = graph.num_users, graph.num_items
    edges = graph.edge_index_dict[USER_TO_ITEM].t().tolist()
    around: list[list[int]] = [[] for _ in range(num_users + num_items)]
    for u, i in edges:
        around[u].append(num_users + i)
        around[num_users + i].append(u)
    layer = [*model.user_emb.weight, *model.item_emb.weight]
    ids = list(layer)
    for _ in range(model.num_layers):
        layer = [
            sum((layer[w] / (len(near) * len(around[w])) ** 0.5 for w in near), 0 * layer[v])
            for v, near in enumerate(around)
        ]
        ids = [total + x for total, x in zip(ids, layer, strict=True)]
    ids = [x / (model.num_layers + 1) for x in ids]

    source, target = graph.edge_index_dict[SIMILAR_ITEMS].tolist()
    weight = graph.edge_weight_dict[SIMILAR_ITEMS].tolist()
    nodes: dict[str, list[Tensor]] = {}
    for name, f in graph.features.items():
        first, second = model.purifiers[name][:2]
        x = []
        for i in range(num_items):
            gate = second.weight @ (first.weight @ f[i] + first.bias) + second.bias
            x.append(model.item_emb.weight[i] / (1 + (-gate).exp()))
        for _ in range(model.num_item_layers):
            smooth = [torch.zeros(8) for _ in x]
            for j, i, w in zip(source, target, weight, strict=True):
                smooth[i] = smooth[i] + w * x[j]
            x = smooth
        users = [torch.zeros(8) for _ in range(num_users)]
        for u, i in edges:
            degrees = len(around[u]) * len(around[num_users + i])
            users[u] = users[u] + x[i] / degrees**0.5
        nodes[name] = [*users, *x]

    content = []
    for v, behaviour in enumerate(ids):
        views = {name: x[v] for name, x in nodes.items()}
        if len(views) == 1:
            content += views.values()
            continue
        lin, _, q = model.query
        attention = {m: (q.weight @ torch.tanh(lin(x))).exp() for m, x in views.items()}
        shared = sum(attention[m] * x for m, x in views.items()) / sum(attention.values())
        own = [
            torch.sigmoid(model.preferences[m](behaviour)) * (x - shared) for m, x in views.items()
        ]
        content.append(shared + sum(own) / len(own))
    return ids, content


@pytest.mark.parametrize("modalities", MODALITIES, ids=len)
@pytest.mark.parametrize(("num_layers", "num_item_layers"), [(0, 1), (2, 2), (1, 0)])
def test_forward_equals_a_loop(
    planted: Callable, modalities: tuple[str, ...], num_layers: int, num_item_layers: int
) -> None:
    graph = with_isolated_nodes(planted(*modalities))
    model = model_of(graph, num_layers=num_layers, num_item_layers=num_item_layers)
    ids, content = loop(model, graph)
    expected = torch.stack(ids) + torch.stack(content)
    user_emb, item_emb = model(*arguments(graph))
    torch.testing.assert_close(torch.cat([user_emb, item_emb]), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("modalities", MODALITIES, ids=len)
def test_the_parts_of_the_loss_equal_a_loop(
    planted: Callable, batch_of: Callable, modalities: tuple[str, ...]
) -> None:
    graph = planted(*modalities)
    settings = {"contrast_weight": 0.3, "temperature": 0.5, "regularization": 0.7}
    model = model_of(graph, **settings)
    user, pos, neg = (x[:30] for x in batch_of(graph))
    assert len(user.unique()) < 30 and len(pos.unique()) < 30
    parts = model.loss(user, pos, neg, *arguments(graph))
    ids, content = loop(model, graph)
    emb = [a + b for a, b in zip(ids, content, strict=True)]

    def cos(a: Tensor, b: Tensor) -> Tensor:
        return a @ b / (a.norm() * b.norm())

    def contrast(nodes: set[int]) -> Tensor:
        losses = []
        for v in nodes:
            logits = {w: cos(content[v], ids[w]) / 0.5 for w in nodes}
            losses.append(sum(x.exp() for x in logits.values()).log() - logits[v])
        return sum(losses) / len(losses)

    ranking, length = [], []
    for u, p, n in zip(user.tolist(), pos.tolist(), neg.tolist(), strict=True):
        p, n = p + graph.num_users, n + graph.num_users
        ranking.append(-(emb[u] @ emb[p] - emb[u] @ emb[n]).sigmoid().log())
        length.append(sum(emb[v] @ emb[v] for v in (u, p, n)) / 2)
    of_items = contrast({i + graph.num_users for i in pos.tolist()})
    assert parts.keys() == {"ranking", "regularization", "contrast"}
    torch.testing.assert_close(parts["ranking"], sum(ranking) / 30)
    torch.testing.assert_close(parts["regularization"], 0.7 * sum(length) / 30)
    torch.testing.assert_close(parts["contrast"], 0.3 * (contrast(set(user.tolist())) + of_items))


def test_gradients_are_those_of_the_loop(planted: Callable) -> None:
    graph = planted()
    model = model_of(graph).double()
    graph.features = {name: x.double() for name, x in graph.features.items()}
    csr = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
    weight = torch.randn(graph.num_users + graph.num_items, 8, dtype=torch.double)
    ids, content = loop(model, graph)
    outs = torch.stack(ids) + torch.stack(content), torch.cat(model(graph.features, csr))
    grads = [torch.autograd.grad((out * weight).sum(), list(model.parameters())) for out in outs]
    # The matrices of the graph are single precision.
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-4, atol=1e-6)


def test_without_contrast_there_is_no_such_part(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model = model_of(graph, contrast_weight=0.0)
    assert model.loss(*batch_of(graph), *arguments(graph)).keys() == {"ranking", "regularization"}


def test_renumbered_users_and_items_are_embedded_alike(
    planted: Callable, batch_of: Callable
) -> None:
    graph = planted()
    model, other = model_of(graph), model_of(graph)
    new_user, new_item = torch.randperm(graph.num_users), torch.randperm(graph.num_items)
    with torch.no_grad():
        other.user_emb.weight[new_user] = model.user_emb.weight
        other.item_emb.weight[new_item] = model.item_emb.weight
    new_id = {"user": new_user, "item": new_item}
    edges = {
        key: torch.stack([new_id[key[0]][adj[0]], new_id[key[2]][adj[1]]])
        for key, adj in graph.edge_index_dict.items()
    }
    features = {name: x[new_item.argsort()] for name, x in graph.features.items()}
    user, pos, neg = batch_of(graph)
    user_emb, item_emb = model(*arguments(graph))
    out = other(features, edges, graph.edge_weight_dict)
    torch.testing.assert_close(out[0][new_user], user_emb)
    torch.testing.assert_close(out[1][new_item], item_emb)
    batch = new_user[user], new_item[pos], new_item[neg]
    torch.testing.assert_close(
        other.loss(*batch, features, edges, graph.edge_weight_dict),
        model.loss(user, pos, neg, *arguments(graph)),
    )


def test_the_order_of_the_modalities_does_not_matter(planted: Callable) -> None:
    graph = planted("image", "text", "sound")
    model = model_of(graph)
    graph.in_channels = dict(reversed(graph.in_channels.items()))
    other = model_of(graph)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(*arguments(graph)), model(*arguments(graph)))


def test_content_that_is_missing_is_named(planted: Callable) -> None:
    graph = planted()
    text = graph.features.pop("text")
    with pytest.raises(ValueError, match=r"'features' lacks 'text'"):
        model_of(graph)(*arguments(graph))
    graph.features["text"] = text[1:]
    with pytest.raises(ValueError, match=r"39 rows of 'text', expected one for each of the 40"):
        model_of(graph)(*arguments(graph))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_channels": {}}, "'in_channels' must name at least one modality"),
        ({"temperature": 0.0}, r"'temperature' must be positive and finite \(got 0.0\)"),
    ],
)
def test_wrong_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MGCN(**{"num_users": 4, "num_items": 4, "in_channels": {"image": 3}, **kwargs})


def test_a_sampled_graph_with_all_neighbours_is_the_whole_graph(planted: Callable) -> None:
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    graph = planted()
    model = model_of(graph)
    batch = next(iter(SubgraphLoader(hetero_of(graph), [-1] * 6, batch_size=5)))
    features = {name: batch["item"][f"x_{name}"] for name in graph.features}
    user, pos, neg = batch.triple
    triple = batch["user"].n_id[user], batch["item"].n_id[pos], batch["item"].n_id[neg]
    torch.testing.assert_close(
        model.loss(user, pos, neg, features, model.subgraph(batch)),
        model.loss(*triple, *arguments(graph)),
    )


def test_sampled_neighbours_stand_for_as_many_as_there_are(planted: Callable) -> None:
    graph = planted("image")
    model = model_of(graph, num_layers=0)
    whole = model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict)
    ids = torch.arange(graph.num_users), torch.arange(graph.num_items)
    degrees = [whole[key].crow_indices().diff() for key in (ITEM_TO_USER, USER_TO_ITEM)]
    nodes = SampledNodes(*ids, 4 * degrees[0], 9 * degrees[1])
    user_emb, item_emb = model(graph.features, whole)
    out = model(graph.features, CSRGraph(whole, nodes))
    # Of 4 d items one in 4 is seen, and each has 9 times as many users: 4 / sqrt(4 * 9) = 2 / 3.
    expected = model.user_emb.weight + (user_emb - model.user_emb.weight) * 2 / 3
    torch.testing.assert_close(out, (expected, item_emb))


@pytest.mark.parametrize("modalities", [("image",), ("image", "text", "sound")], ids=len)
def test_it_learns(
    modalities: tuple[str, ...], planted_dataset: Callable[..., PlantedPreferences]
) -> None:
    dataset = planted_dataset(300, 200, modalities, mean_degree=20.0)
    data = dataset[0]
    user, pos = data[USER_TO_ITEM].edge_index
    val = dataset.view("val")[USER_TO_ITEM].edge_label_index
    features = {name: data["item"][f"x_{name}"] for name in modalities}
    torch.manual_seed(0)
    model = MGCN(300, 200, {name: x.size(1) for name, x in features.items()}, 32)
    graph = model.training_graph(data.edge_index_dict, data.edge_weight_dict)
    sampler = NegativeSampler(torch.stack([user, pos]), 300, 200)
    optimizer, generator = torch.optim.Adam(model.parameters(), 0.01), torch.Generator()
    losses = []
    for _ in range(60):
        neg = sampler(user, generator)
        loss = sum(model.loss(user, pos, neg, features, graph).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    seen = [torch.stack([user, pos])]
    popularity = torch.bincount(pos, minlength=200).float().view(-1, 1)
    popular = evaluate(torch.ones(300, 1), popularity, val, seen)["Recall@20"]
    learned = evaluate(*model(features, graph), val, seen)["Recall@20"]
    assert losses[-1] < 0.6 * losses[0]
    assert learned > 1.5 * popular
