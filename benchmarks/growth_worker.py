"""One size of a planted graph in a process of its own, started by growth.py."""

import ctypes
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import HeteroData

from gtc_pyg.lightning import GraphInputs, RecommenderModule
from gtc_pyg.loader import InteractionLoader, SubgraphLoader
from gtc_pyg.models import FREEDOM, GTC, GraphRecommender, LightGCN
from gtc_pyg.nn import BPR
from gtc_pyg.transforms import ItemKNNGraph
from harness.workers import status_mib

MODALITIES, WIDTH, MIB = ("image", "text"), 128, 2**20
TO_ITEM, TO_USER = ("user", "rates", "item"), ("item", "rev_rates", "user")
SIMILAR = ("item", "similar", "item")


def planted(num_interactions: int, seed: int = 0) -> HeteroData:
    """A graph of so many different interactions, less the few drawn twice, with content."""
    g = torch.Generator().manual_seed(seed)
    num_users, num_items = max(50, num_interactions // 20), max(40, num_interactions * 3 // 200)
    num_groups = max(4, num_items // 200)
    user = torch.randint(num_users, (num_interactions,), generator=g)
    stays = torch.rand(num_interactions, generator=g) < 0.8
    size = num_items // num_groups  # item i belongs to group i // size, the last is larger
    within = (user % num_groups) * size + torch.randint(size, user.shape, generator=g)
    item = torch.where(stays, within, torch.randint(num_items, user.shape, generator=g))
    key = torch.unique(user * num_items + item)
    edge_index = torch.stack([key // num_items, key % num_items])
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = num_users, num_items
    group = add_content(data, num_groups, g)
    data[TO_ITEM].edge_index, data[TO_USER].edge_index = edge_index, edge_index.flip(0)
    target = torch.arange(num_items).repeat_interleave(10)
    source = group[target] * size + torch.randint(size, target.shape, generator=g)
    data[SIMILAR].edge_index = torch.stack([source, target])
    data[SIMILAR].edge_weight = torch.full(target.shape, 0.1)
    return data


def add_content(data: HeteroData, num_groups: int, generator: torch.Generator) -> Tensor:
    """Two modalities, each a centre per group and noise. Returns the group of every item."""
    num_items = data["item"].num_nodes
    group = (torch.arange(num_items) // (num_items // num_groups)).clamp(max=num_groups - 1)
    for name in MODALITIES:
        centres = torch.randn(num_groups, WIDTH, generator=generator)
        noise = torch.randn(num_items, WIDTH, generator=generator)
        data["item"][f"x_{name}"] = noise.add_(centres[group])
    return group


def model_of(name: str, data: HeteroData) -> GraphRecommender:
    """A recommender for planted data; what LightGCN does not read is taken out of it."""
    size = (data["user"].num_nodes, data["item"].num_nodes)
    widths = dict.fromkeys(MODALITIES, WIDTH)
    if name == "lightgcn":
        del data[SIMILAR], data["item"].x_image, data["item"].x_text
        return LightGCN(*size)
    if name == "gtc":  # the plain form: no columns besides, one negative an interaction
        return GTC(*size, widths, ranking=BPR(), heads=[], edge_dropout=0.0)
    return FREEDOM(*size, widths, edge_dropout=0.0)


def tables_of(model: GraphRecommender) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, Embedding)]


def stored_mib(model: GraphRecommender, data: HeteroData, held: object) -> dict[str, float]:
    """What grows with the graph, in MiB, each array counted once.

    Tables with both states of Adam; content; and adjacency: all other tensors in ``held``, the
    data, its loader and a graph, which is the interactions in every form that they are read in.
    """
    content = [data["item"][f"x_{name}"] for name in MODALITIES if f"x_{name}" in data["item"]]
    storages = {x.data_ptr(): x.nbytes() for x in map(Tensor.untyped_storage, tensors_in(held))}
    for x in content:
        storages.pop(x.untyped_storage().data_ptr(), None)
    return {
        "tables_mib": 3 * sum(x.nbytes for x in tables_of(model)) / MIB,
        "content_mib": sum(x.nbytes for x in content) / MIB,
        "adjacency_mib": sum(storages.values()) / MIB,
    }


def tensors_in(thing: object, visited: set[int] | None = None) -> Iterator[Tensor]:
    """All tensors that an object holds, at any depth; of a CSR matrix its three arrays."""
    visited = set() if visited is None else visited
    if id(thing) in visited:
        return
    visited.add(id(thing))
    if isinstance(thing, Tensor):
        if thing.layout == torch.sparse_csr:
            yield from (thing.crow_indices(), thing.col_indices(), thing.values())
        else:
            yield thing
        return
    if isinstance(thing, dict):
        for value in thing.values():
            yield from tensors_in(value, visited)
    elif isinstance(thing, list | tuple):
        for value in thing:
            yield from tensors_in(value, visited)
    known = type(thing).__module__.split(".")[0] in ("gtc_pyg", "torch_geometric", "torch")
    if known and hasattr(thing, "__dict__"):
        yield from tensors_in(vars(thing), visited)


def optimizers_of(model: GraphRecommender, sparse: bool) -> list[torch.optim.Optimizer]:
    """Those of a training."""
    module = RecommenderModule(model)
    module.automatic_optimization = not sparse
    for table in (m for m in model.modules() if isinstance(m, Embedding)):
        table.sparse = sparse
    return module.configure_optimizers()


def touch_states(optimizers: list[torch.optim.Optimizer]) -> None:
    """Writes to all of the states, whose memory else comes bit by bit over a first epoch."""
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.add_(0)


class Training:
    """One size and model in this process, which trains when it is told to."""

    def __init__(self, run: dict[str, Any]) -> None:
        torch.set_num_threads(run["threads"])
        self.run, self.whole, self.base = run, run["what"] == "whole graph", status_mib("VmRSS")
        self.data = data = planted(run["interactions"], run["seed"])
        sizes, edges = (data["user"].num_nodes, data["item"].num_nodes), data[TO_ITEM].edge_index
        torch.manual_seed(run["seed"])
        self.model = model_of(run["model"], data)
        self.generator = torch.Generator().manual_seed(run["seed"])
        self.loader: InteractionLoader | SubgraphLoader
        if self.whole:
            inputs = GraphInputs.from_data(data)
            self.features = inputs.features
            self.graph = self.model.training_graph(
                inputs.edge_index_dict, inputs.edge_weight_dict, self.generator
            )
            self.loader = InteractionLoader(edges, *sizes, run["batch"], run["seed"])
        else:
            fan_out = json.loads(run["fan_out"])
            hops = {TO_ITEM: fan_out, TO_USER: fan_out, SIMILAR: json.loads(run["item_fan_out"])}
            hops = {key: hops[key] for key in data.edge_types}
            self.loader = SubgraphLoader(data, hops, run["batch"], run["seed"])
        self.sampled: list[tuple[int, int, int]] = []
        self.steps = self._steps()
        self.setup = status_mib("VmHWM") - self.base
        ctypes.CDLL(None).malloc_trim(0)  # what set-up has freed is none of training's
        Path("/proc/self/clear_refs").write_text("5")  # the next peak is that of training

    def _steps(self) -> Iterator[tuple[float, float]]:
        """Trains a step at each ``next``: its seconds, and those of sampling among them."""
        optimizers = optimizers_of(self.model, sparse=not self.whole)
        while True:
            stream, start = iter(self.loader), time.perf_counter()
            for batch in stream:
                drawn = time.perf_counter()
                if self.whole:
                    triple, features, graph = batch, self.features, self.graph
                else:
                    triple, graph = batch.triple, self.model.subgraph(batch)
                    features = GraphInputs.from_data(batch).features
                parts = self.model.loss(*triple, features, graph, generator=self.generator)
                for optimizer in optimizers:
                    optimizer.zero_grad()
                torch.stack(list(parts.values())).sum().backward()
                for optimizer in optimizers:
                    optimizer.step()
                seconds = time.perf_counter() - start
                if not self.sampled:
                    touch_states(optimizers)
                if triple.user.numel() == self.run["batch"]:  # an epoch's last may be smaller
                    num_edges = sum(adj.values().numel() for adj in graph.values())
                    self.sampled.append((graph.num_users, graph.num_items, num_edges))
                    yield seconds, drawn - start
                start = time.perf_counter()

    def time(self, number: int, untimed: int) -> list[tuple[float, float]]:
        """What some steps took, after some that are not timed."""
        return list(itertools.islice(self.steps, untimed, untimed + number))

    def about(self) -> dict[str, Any]:
        """Sizes and memory, columns of the row."""
        peak = status_mib("VmHWM") - self.base
        num = self.data[TO_ITEM].edge_index.size(1)
        held = [self.data, self.loader, self.graph if self.whole else None]
        stored = stored_mib(self.model, self.data, held)
        stored["adjacency_mib"] += 8 * num / MIB  # the order of the epoch, its iterator's
        counts = [round(statistics.fmean(column)) for column in zip(*self.sampled, strict=True)]
        return {
            "users": self.data["user"].num_nodes,
            "items": self.data["item"].num_nodes,
            **dict(zip(("sampled_users", "sampled_items", "sampled_edges"), counts, strict=True)),
            "epoch_steps": -(-num // self.run["batch"]),
            "setup_peak_mib": f"{self.setup:.0f}",
            "peak_mib": f"{peak:.0f}",
            **{key: f"{value:.0f}" for key, value in stored.items()},
        }


class ItemGraph:
    """The exact item graph of two modalities, k = 10, in this process."""

    def __init__(self, run: dict[str, Any]) -> None:
        self.run = run

    def about(self) -> dict[str, object]:
        """Makes the graph: time and memory, columns of the row."""
        torch.set_num_threads(self.run["threads"])
        base, data = status_mib("VmRSS"), HeteroData()
        data["item"].num_nodes = num_items = self.run["interactions"]
        generator = torch.Generator().manual_seed(self.run["seed"])
        add_content(data, max(4, num_items // 200), generator)
        content = sum(data["item"][f"x_{name}"].nbytes for name in MODALITIES) / MIB
        Path("/proc/self/clear_refs").write_text("5")
        start = time.perf_counter()
        ItemKNNGraph(k=10, progress=True)(data)
        seconds = time.perf_counter() - start
        return {
            "items": num_items,
            "step_s": f"{seconds:.1f}",
            "us_per_interaction": f"{1e6 * seconds / num_items:.1f}",
            "peak_mib": f"{status_mib('VmHWM') - base:.0f}",
            "content_mib": f"{content:.0f}",
        }


def main(run: dict[str, Any]) -> Training | ItemGraph:
    return ItemGraph(run) if run["what"] == "item graph" else Training(run)
