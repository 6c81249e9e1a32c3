r"""What scores are sums of, against the embeddings of every model and loops from the equations."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.inductive.user_embedder import new_users
from gtc_pyg.models import FREEDOM, MGCN, GraphRecommender, LightGCN, SpectralFilter
from gtc_pyg.models.components import Components
from gtc_pyg.nn import BPR, UniformGate
from tests.models.graphs import arguments, csr_of, gtc_of

CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "lightgcn": (LightGCN, {}),
    "lightgcn-0": (LightGCN, {"num_layers": 0, "ranking": BPR(scale=2.0)}),
    "freedom-0": (FREEDOM, {"num_item_layers": 0}),
    "freedom": (FREEDOM, {"ranking": BPR(scale=2.0)}),
    "freedom-2": (FREEDOM, {"num_item_layers": 2}),
    "spectral": (SpectralFilter, {"channels": 8}),
    "mgcn": (MGCN, {"ranking": BPR(scale=2.0)}),
    "mgcn-0-1": (MGCN, {"num_layers": 0}),
    "mgcn-1-0": (MGCN, {"num_layers": 1, "num_item_layers": 0}),
    "mgcn-2-2": (MGCN, {"num_item_layers": 2}),
    "gtc": (None, {"strength": 0.5, "ranking": BPR(scale=3.0)}),
    "gtc-item": (None, {"condition": "item", "num_item_layers": 0}),
    "gtc-neighbors": (None, {"condition": "neighbors", "num_item_layers": 2, "strength": 0.5}),
    "gtc-uniform": (None, {"fusion": UniformGate(), "num_layers": 0, "num_sampling_steps": 3}),
}


def model_of(graph: SimpleNamespace, name: str) -> GraphRecommender:
    cls, settings = CASES[name]
    if cls is None:
        return gtc_of(graph, **settings)
    torch.manual_seed(0)
    content = [] if cls is LightGCN else [graph.in_channels]
    width = {} if cls is SpectralFilter else {"hidden_channels": 8}
    model = cls(graph.num_users, graph.num_items, *content, **width, **settings)
    model.prepare(*arguments(graph)[1:], spectral_start=False)
    return model


def components_of(graph: SimpleNamespace, name: str) -> tuple[Components, Tensor, Tensor, Any]:
    r"""Components, own embeddings of users (scaled) and items, and the model."""
    model, csr = model_of(graph, name), csr_of(graph)
    with torch.no_grad():
        user_emb, item_emb = model.embed(graph.features, csr)
        scale = model.ranking.scale
        return model.components(graph.features, csr), scale * user_emb, item_emb, model


@pytest.mark.parametrize("name", CASES)
def test_sources_of_an_item_add_up_to_its_embedding(planted: Callable, name: str) -> None:
    graph = planted()
    c, _, item_emb, _ = components_of(graph, name)
    for item in (0, 13, 39):
        own, _, near = c.of_item(item)
        assert own.shape == (len(c.sources), item_emb.size(1))
        total = own.sum(dim=0) + near.sum(dim=(0, 1))
        torch.testing.assert_close(total, item_emb[item], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_own_id_and_past_items_add_up_to_a_user(planted: Callable, name: str) -> None:
    graph = planted()
    c, user_emb, _, model = components_of(graph, name)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    for u in (0, 30, 59):
        items = item[user == u]
        new = new_users(torch.stack([torch.zeros_like(items), items]), 1, graph.num_items)
        with torch.no_grad():
            own, past, _ = c.of_user(new, model.transform_user(model.user_emb.weight[u : u + 1])[0])
        assert past.shape == (items.numel(), len(c.sources), user_emb.size(1))
        assert (own[1:] == 0).all()
        total = own.sum(dim=0) + past.sum(dim=(0, 1))
        torch.testing.assert_close(total, user_emb[u], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_sources_are_interactions_and_modalities(planted: Callable, name: str) -> None:
    c = components_of(planted(), name)[0]
    with_content = name.startswith(("gtc", "mgcn"))
    assert c.sources == ("interactions", *(["image", "text"] if with_content else []))
    assert list(c.filtered) == (["image", "text"] if name.startswith("gtc") else [])


@pytest.mark.parametrize("num_item_layers", [1, 2])
def test_neighbours_are_a_row_of_the_power_of_the_item_graph(
    planted: Callable, num_item_layers: int
) -> None:
    graph = planted()
    csr = csr_of(graph)
    similar = torch.zeros(40, 40)
    source, target = graph.edge_index_dict[SIMILAR_ITEMS]
    similar[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS]
    power = torch.matrix_power(similar, num_item_layers)
    for item in (0, 21, 39):
        rows, weight = csr.neighbors(item, num_item_layers, torch.ones(1))
        assert rows.unique().numel() == rows.numel()
        torch.testing.assert_close(torch.zeros(40).index_add(0, rows, weight), power[item])
        assert [x.numel() for x in csr.neighbors(item, 0, torch.ones(1))] == [0, 0]


def test_a_model_that_does_not_say_is_refused(planted: Callable) -> None:
    graph = planted()
    model = GraphRecommender(graph.num_users, graph.num_items, 8)
    with pytest.raises(TypeError, match="GraphRecommender does not say what its scores are sums"):
        model.components(graph.features, csr_of(graph))


@torch.no_grad()
def test_mgcn_takes_attention_and_gates_as_they_are(planted: Callable) -> None:
    model = model_of(planted(), "mgcn")
    ids, content = torch.randn(7, 8), torch.randn(7, 2, 8)
    weights = model.fusion_weights(ids, content)
    torch.testing.assert_close((weights * content).sum(dim=1), model.fuse(ids, content))
    lin, _, query = model.query
    for n in range(7):
        logits = [query.weight[0] @ torch.tanh(lin(content[n, m])) for m in range(2)]
        share = torch.stack(logits).softmax(dim=0)
        gates = [model.preferences[m](ids[n]).sigmoid() for m in ("image", "text")]
        for m in range(2):
            # Of what is shared, less what gates take out of it, and what a gate adds.
            expected = share[m] * (1 - (gates[0] + gates[1]) / 2) + gates[m] / 2
            torch.testing.assert_close(weights[n, m], expected)


@torch.no_grad()
def test_an_item_of_mgcn_by_a_loop_over_similar_items(planted: Callable) -> None:
    graph = planted()
    model, csr = model_of(graph, "mgcn"), csr_of(graph)
    c = model.components(graph.features, csr)
    item_ids = csr.layer_mean(torch.cat([model.user_emb.weight, model.item_emb.weight]), 2)[60:]
    source, target = graph.edge_index_dict[SIMILAR_ITEMS].tolist()
    weight = graph.edge_weight_dict[SIMILAR_ITEMS].tolist()
    for item in (3, 38):
        near = {j: w for j, i, w in zip(source, target, weight, strict=True) if i == item}
        content = {
            j: torch.stack(
                [
                    model.item_emb.weight[j] * model.purifiers[m](x[j])
                    for m, x in graph.features.items()
                ]
            )
            for j in near
        }
        whole = sum(w * content[j] for j, w in near.items())
        factor = model.fusion_weights(item_ids[item : item + 1], whole.unsqueeze(0))[0]
        own, rows, parts = c.of_item(item)
        assert rows.tolist() == sorted(near) and (parts[:, 0] == 0).all()
        torch.testing.assert_close(own[0], item_ids[item])
        for row, part in zip(rows.tolist(), parts[:, 1:], strict=True):
            torch.testing.assert_close(part, factor * near[row] * content[row])
