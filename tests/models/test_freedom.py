from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import FREEDOM
from tests.models.graphs import arguments


def model_of(graph: SimpleNamespace, **kwargs: float) -> FREEDOM:
    torch.manual_seed(0)
    return FREEDOM(graph.num_users, graph.num_items, graph.in_channels, 8, **kwargs)


def dense_forward(model: FREEDOM, graph: SimpleNamespace) -> tuple[Tensor, Tensor]:
    r"""The equation of the docstring with dense matrices."""
    num_users, num_nodes = graph.num_users, graph.num_users + graph.num_items
    a = torch.zeros(num_nodes, num_nodes)
    for u, i in graph.edge_index_dict[USER_TO_ITEM].t().tolist():
        a[u, num_users + i] = a[num_users + i, u] = 1
    degree = a.sum(1)
    for node, neighbor in a.nonzero().tolist():
        a[node, neighbor] = (degree[node] * degree[neighbor]) ** -0.5
    s = torch.zeros(graph.num_items, graph.num_items)
    source, target = graph.edge_index_dict[SIMILAR_ITEMS]
    s[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS]
    ego = torch.cat([model.user_emb.weight, model.item_emb.weight])
    layers = [torch.matrix_power(a, l) @ ego for l in range(model.num_layers + 1)]
    mean = sum(layers) / len(layers)
    similar = torch.matrix_power(s, model.num_item_layers) @ model.item_emb.weight
    return mean[:num_users], mean[num_users:] + similar


@pytest.mark.parametrize(("num_layers", "num_item_layers"), [(0, 1), (1, 2), (2, 1), (3, 0)])
def test_forward_equals_the_dense_equation(
    planted: Callable, num_layers: int, num_item_layers: int
) -> None:
    graph = planted()
    model = model_of(graph, num_layers=num_layers, num_item_layers=num_item_layers)
    torch.testing.assert_close(model(*arguments(graph)), dense_forward(model, graph))


def test_evaluation_sees_the_whole_graph(planted: Callable) -> None:
    graph = planted()
    pruning, keeping = model_of(graph, edge_dropout=0.8), model_of(graph, edge_dropout=0.0)
    torch.testing.assert_close(pruning(*arguments(graph)), keeping(*arguments(graph)))


def test_a_pruned_graph_is_normalised_by_its_own_degrees(planted: Callable) -> None:
    graph = planted()
    model = model_of(graph, edge_dropout=0.8)
    pruned = model.training_graph(graph.edge_index_dict, graph.edge_weight_dict)
    out = model(graph.features, pruned)
    graph.edge_index_dict[USER_TO_ITEM] = pruned[ITEM_TO_USER].to_dense().nonzero().t()
    torch.testing.assert_close(out, dense_forward(model, graph))


def test_four_fifths_are_pruned_unless_said_otherwise(planted: Callable) -> None:
    graph = planted()
    pruned = model_of(graph).training_graph(graph.edge_index_dict, graph.edge_weight_dict)
    num_edges = graph.edge_index_dict[USER_TO_ITEM].size(1)
    assert pruned[USER_TO_ITEM].values().numel() == round(0.2 * num_edges)


def test_the_parts_of_the_loss_equal_a_loop(planted: Callable, batch_of: Callable) -> None:
    graph = planted("image", "text", "sound")
    model = model_of(graph, modality_weight=0.3)
    user, pos, neg = batch_of(graph)
    parts = model.loss(user, pos, neg, *arguments(graph))
    user_emb, item_emb = model(*arguments(graph))

    def bpr(item: Tensor) -> Tensor:
        margin = [user_emb[u] @ (item[p] - item[n]) for u, p, n in zip(user, pos, neg, strict=True)]
        return -torch.stack(margin).sigmoid().log().mean()

    content = [model.projections[name](x) for name, x in graph.features.items()]
    assert parts.keys() == {"ranking", "modalities"}
    torch.testing.assert_close(parts["ranking"], bpr(item_emb))
    torch.testing.assert_close(parts["modalities"], 0.3 * sum(bpr(x) for x in content))
