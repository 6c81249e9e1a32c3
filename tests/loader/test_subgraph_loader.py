from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, SIMILAR_ITEMS, USER_TO_ITEM, CSRGraph
from gtc_pyg.loader import SubgraphLoader
from gtc_pyg.models import FREEDOM, ItemBias, LightGCN
from gtc_pyg.nn import SampledSoftmax
from tests.models.graphs import gtc_of, hetero_of

pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")

ALL = [-1] * 6


def models_of(graph: SimpleNamespace) -> list[Any]:
    torch.manual_seed(0)
    size = (graph.num_users, graph.num_items)
    # What is drawn by the batch's positions differs in a sampled graph.
    weights = {"diffusion": 0.0, "total_correlation": 0.0, "filter": 1.0}
    return [
        LightGCN(*size, 8),
        FREEDOM(*size, graph.in_channels, 8, edge_dropout=0.0),
        gtc_of(graph, loss_weights=weights),
        gtc_of(graph, loss_weights=weights, ranking=SampledSoftmax(16), heads=[ItemBias()]),
    ]


def doubled(graph: CSRGraph) -> CSRGraph:
    return CSRGraph({key: adj.double() for key, adj in graph.items()}, graph.nodes)


def pairs(batch: HeteroData) -> tuple[Tensor, Tensor, Tensor]:
    """The triples of a batch by their ids in the whole graph."""
    user, pos, neg = batch.triple
    return batch["user"].n_id[user], batch["item"].n_id[pos], batch["item"].n_id[neg]


def test_an_epoch_sees_every_interaction_once(planted: Callable) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    known = {tuple(pair) for pair in edges.t().tolist()}
    loader = SubgraphLoader(hetero_of(graph), [3, 2], batch_size=50)
    seen = []
    for batch in loader:
        user, pos, neg = pairs(batch)
        seen += zip(user.tolist(), pos.tolist(), strict=True)
        assert not known & set(zip(user.tolist(), neg.tolist(), strict=True))
    assert len(seen) == edges.size(1) and set(seen) == known
    assert len(loader) == -(-edges.size(1) // 50)


def test_sampled_edges_content_and_degrees_are_the_graphs(
    planted: Callable,
) -> None:
    graph = planted()
    batch = next(iter(SubgraphLoader(hetero_of(graph), [3, 2], batch_size=20)))
    for key in (USER_TO_ITEM, ITEM_TO_USER, SIMILAR_ITEMS):
        source, target = batch[key].edge_index
        found = torch.stack([batch[key[0]].n_id[source], batch[key[2]].n_id[target]])
        known = {tuple(pair) for pair in graph.edge_index_dict[key].t().tolist()}
        assert {tuple(pair) for pair in found.t().tolist()} <= known
        assert torch.bincount(target).max() <= 3
    for name, x in graph.features.items():
        assert torch.equal(batch["item"][f"x_{name}"], x[batch["item"].n_id])
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    assert torch.equal(batch["user"].degree, torch.bincount(user)[batch["user"].n_id])
    degree = torch.bincount(item, minlength=graph.num_items)
    assert torch.equal(batch["item"].degree, degree[batch["item"].n_id])


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["lightgcn", "freedom", "gtc", "gtc_softmax"])
def test_all_neighbours_give_the_embeddings_of_the_graph(planted: Callable, which: int) -> None:
    graph = planted()
    model = models_of(graph)[which].double()
    batch = next(iter(SubgraphLoader(hetero_of(graph), ALL, batch_size=5)))
    whole = doubled(model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict))
    expected = model({name: x.double() for name, x in graph.features.items()}, whole)
    features = {name: batch["item"][f"x_{name}"].double() for name in graph.features}
    out = model(features, doubled(model.subgraph(batch)))
    user, pos, neg = pairs(batch)
    for emb, whole_emb, here, there in (
        (out[0], expected[0], batch.triple.user, user),
        (out[1], expected[1], torch.cat(batch.triple[1:]), torch.cat([pos, neg])),
    ):
        torch.testing.assert_close(emb[here], whole_emb[there])


@pytest.mark.parametrize("which", [0, 1, 2, 3], ids=["lightgcn", "freedom", "gtc", "gtc_softmax"])
def test_all_neighbours_give_the_gradients_of_the_graph(planted: Callable, which: int) -> None:
    graph = planted()
    model = models_of(graph)[which].double()
    batch = next(iter(SubgraphLoader(hetero_of(graph), ALL, batch_size=5)))
    features = {name: x.double() for name, x in graph.features.items()}
    whole = doubled(model.csr_graph(graph.edge_index_dict, graph.edge_weight_dict))
    sampled = {name: batch["item"][f"x_{name}"].double() for name in graph.features}
    losses, grads = [], []
    for triple, content, adj in (
        (pairs(batch), features, whole),
        (batch.triple, sampled, doubled(model.subgraph(batch))),
    ):
        model.zero_grad()
        loss = sum(model.loss(*triple, content, adj).values())
        loss.backward()
        losses.append(loss.detach())
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(losses[0], losses[1])
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=lambda m, n=name: f"{n}: {m}")


def test_sampled_neighbours_stand_for_all_of_them_on_average(planted: Callable) -> None:
    graph = planted()
    data, model = hetero_of(graph), models_of(graph)[0].double()
    whole = doubled(model.csr_graph(graph.edge_index_dict))
    x = torch.randn(graph.num_users + graph.num_items, 3, dtype=torch.double)
    expected = whole.layer_mean(x, 1)
    total, count = torch.zeros_like(expected), torch.zeros(len(expected), 1)
    for epoch in range(150):
        for batch in SubgraphLoader(data, [3], batch_size=10_000, seed=epoch):
            sub = doubled(model.subgraph(batch))
            nodes = torch.cat([sub.nodes.user_id, sub.nodes.item_id + graph.num_users])
            sampled = torch.cat(
                [sub[k].crow_indices().diff() for k in (ITEM_TO_USER, USER_TO_ITEM)]
            )
            reached = sampled > 0
            out = sub.layer_mean(x[nodes], 1)
            total[nodes[reached]] += out[reached]
            count[nodes[reached]] += 1
    often = (count > 100).view(-1)
    assert often.sum() > 50
    error = (total / count.clamp(min=1) - expected)[often]
    spread = error.pow(2).mean().sqrt()
    assert spread < 0.12 * expected[often].pow(2).mean().sqrt()


@pytest.mark.parametrize("how", ["numpy", "torch"])
def test_content_may_stay_in_a_file(planted: Callable, tmp_path: Path, how: str) -> None:
    graph = planted()
    kept, mapped = hetero_of(graph), hetero_of(graph)
    for name, x in graph.features.items():
        path = tmp_path / f"{name}.npy"
        if how == "numpy":
            np.save(path, x.numpy())
            rows = torch.from_numpy(np.load(path, mmap_mode="c"))
        else:
            path.write_bytes(x.numpy().tobytes())
            rows = torch.from_file(str(path), size=x.numel(), dtype=x.dtype).view_as(x)
        mapped["item"][f"x_{name}"] = rows
    loaders = [SubgraphLoader(data, [3, 2], 20) for data in (kept, mapped)]
    for name in graph.features:  # no copy of the whole
        held = loaders[1].data["item"][f"x_{name}"]
        assert held.data_ptr() == mapped["item"][f"x_{name}"].data_ptr()
    model = gtc_of(graph)
    for batch, from_file in zip(*loaders, strict=True):
        losses = []
        for of in (batch, from_file):
            features = {name: of["item"][f"x_{name}"] for name in graph.features}
            generator = torch.Generator().manual_seed(0)
            parts = model.loss(*of.triple, features, model.subgraph(of), generator=generator)
            losses.append(torch.stack(list(parts.values())))
        for name in graph.features:
            key = f"x_{name}"
            assert torch.equal(batch["item"][key], from_file["item"][key])
            whole = mapped["item"][key].untyped_storage().data_ptr()
            assert from_file["item"][key].untyped_storage().data_ptr() != whole
        assert torch.equal(*losses)


def test_a_batch_takes_no_memory_for_those_to_come() -> None:
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = 1000, 50
    edges = torch.stack([torch.arange(40_000) // 40, torch.arange(40_000) % 40])
    data[USER_TO_ITEM].edge_index, data[ITEM_TO_USER].edge_index = edges, edges.flip(0)
    loader = SubgraphLoader(data, [1], batch_size=1)
    next(iter(loader))
    tracemalloc.start()
    next(iter(loader))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000  # 40,000 tensors are some MB


def test_epochs_differ_and_come_back_from_the_seed(planted: Callable) -> None:
    data = hetero_of(planted())

    def epoch_of(loader: SubgraphLoader) -> list[Tensor]:
        batch = next(iter(loader))
        return [*pairs(batch), batch["user"].n_id, batch[USER_TO_ITEM].edge_index]

    loader, state = SubgraphLoader(data, [2, 2], 30), torch.get_rng_state()
    first, second = epoch_of(loader), epoch_of(loader)
    assert torch.equal(torch.get_rng_state(), state)
    assert "degree" not in data["user"] and "degree" not in data["item"]
    again = epoch_of(SubgraphLoader(data, [2, 2], 30))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], second[0])
    assert not torch.equal(first[0], epoch_of(SubgraphLoader(data, [2, 2], 30, seed=1))[0])


def test_a_user_with_every_item_is_named_and_left_out(planted: Callable) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    every = torch.stack([torch.full((40,), 7), torch.arange(40)])
    with pytest.warns(UserWarning, match="user 7 has all 40 items"):
        loader = SubgraphLoader(
            hetero_of(graph), [3, 2], 50, edge_label_index=torch.cat([edges, every], dim=1)
        )
    seen = torch.cat([torch.stack(pairs(batch)[:2]) for batch in loader], dim=1)
    expected = edges[:, edges[0] != 7]
    assert sorted(seen.t().tolist()) == sorted(expected.t().tolist())


def test_wrong_arguments_are_named(planted: Callable) -> None:
    data = hetero_of(planted())
    with pytest.raises(ValueError, match=r"'batch_size' must be at least 1 \(got 0\)"):
        SubgraphLoader(data, batch_size=0)
    with pytest.raises(ValueError, match="no interactions"):
        SubgraphLoader(data, edge_label_index=torch.empty(2, 0, dtype=torch.long))


def test_shares_of_processes_are_the_batches_of_one(
    planted: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hetero_of(planted())
    num = data[USER_TO_ITEM].edge_index.size(1)

    def triples(rank: int, total: int) -> list[Tensor]:
        for name, value in (("RUN_ID", "none"), ("RANK", rank), ("WORLD_SIZE", total)):
            monkeypatch.setenv(f"TORCHELASTIC_{name}" if name == "RUN_ID" else name, str(value))
        batches = list(SubgraphLoader(data, [2], batch_size=63, seed=3))
        assert sum(batch.num_triples for batch in batches) == num
        return [torch.stack(pairs(batch)) for batch in batches]

    one, first, second = triples(0, 1), triples(0, 2), triples(1, 2)
    for whole, *shares in zip(one, first, second, strict=True):
        assert torch.equal(torch.cat(shares, dim=1), whole)
