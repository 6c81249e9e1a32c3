from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch_geometric.nn
from torch import Tensor

from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from gtc_pyg.models import LightGCN


def model_of(graph: SimpleNamespace, num_layers: int = 2) -> LightGCN:
    torch.manual_seed(0)
    return LightGCN(graph.num_users, graph.num_items, 8, num_layers)


def stacked(graph: SimpleNamespace) -> Tensor:
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    edge_index = torch.stack([user, item + graph.num_users])
    return torch.cat([edge_index, edge_index.flip(0)], dim=1)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_equals_pygs_own_on_the_stacked_graph(planted: Callable, num_layers: int) -> None:
    graph = planted()
    model = model_of(graph, num_layers)
    num_nodes = graph.num_users + graph.num_items
    expected = torch_geometric.nn.LightGCN(num_nodes, 8, num_layers)
    with torch.no_grad():
        expected.embedding.weight.copy_(torch.cat([model.user_emb.weight, model.item_emb.weight]))
    out = torch.cat(model(graph.features, graph.edge_index_dict))
    torch.testing.assert_close(out, expected.get_embedding(stacked(graph)))


def test_adjacency_forms_give_the_same(planted: Callable, to_adj: Callable) -> None:
    graph = planted()
    sizes = {"user": graph.num_users, "item": graph.num_items}
    adjs = {
        key: to_adj(edges, sizes[key[0]], sizes[key[2]])
        for key, edges in graph.edge_index_dict.items()
    }
    model = model_of(graph)
    expected = model(graph.features, graph.edge_index_dict)
    torch.testing.assert_close(model(graph.features, adjs), expected)


def test_gradients_equal_pygs_own(planted: Callable) -> None:
    graph = planted()
    model = model_of(graph)
    weight = torch.randn(graph.num_users + graph.num_items, 8)
    (torch.cat(model(graph.features, graph.edge_index_dict)) * weight).sum().backward()
    expected = torch_geometric.nn.LightGCN(graph.num_users + graph.num_items, 8, 2)
    with torch.no_grad():
        expected.embedding.weight.copy_(torch.cat([model.user_emb.weight, model.item_emb.weight]))
    (expected.get_embedding(stacked(graph)) * weight).sum().backward()
    grads = torch.cat([model.user_emb.weight.grad, model.item_emb.weight.grad])
    torch.testing.assert_close(grads, expected.embedding.weight.grad)


def test_the_parts_of_the_loss_equal_a_loop(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model = LightGCN(graph.num_users, graph.num_items, 8, regularization=0.3)
    user, pos, neg = batch_of(graph)
    parts = model.loss(user, pos, neg, graph.features, graph.edge_index_dict)
    user_emb, item_emb = model(graph.features, graph.edge_index_dict)
    ego_user, ego_item = model.user_emb.weight, model.item_emb.weight
    ranking, size = [], Tensor([0.0])
    for u, p, n in zip(user, pos, neg, strict=True):
        margin = user_emb[u] @ item_emb[p] - user_emb[u] @ item_emb[n]
        ranking.append(-margin.sigmoid().log())
        size = size + (ego_user[u] @ ego_user[u] + ego_item[p] @ ego_item[p]) / 2
        size = size + ego_item[n] @ ego_item[n] / 2
    assert parts.keys() == {"ranking", "regularization"}
    torch.testing.assert_close(parts["ranking"], torch.stack(ranking).mean())
    torch.testing.assert_close(parts["regularization"], 0.3 * size[0] / user.numel())
