"""Time per interaction and memory of training on mini-batches, as graphs grow.

    python benchmarks/growth.py                              # 10^5 to 2 x 10^7 interactions
    python benchmarks/growth.py --interactions 1000000 --batch 256 --models gtc
    python benchmarks/growth.py --whole --batch 2048 --interactions 100000 1000000 --steps 20
    python benchmarks/growth.py --items 30000 300000         # item graphs, all pairs
    python benchmarks/growth.py --report                     # table, plot, page

Planted graphs with 20 interactions a user and 67 an item, so 2 x 10^7 have 1,000,000 users and
300,000 items, and two modalities of width 128. Users and items belong to groups; four interactions
of five stay within one. An item's ten similar items are drawn from its group (that graph's own cost
is measured by --items). LightGCN, which reads neither content nor item graph, gets neither.

Each size has a process of its own. It trains --steps steps at a fixed fan-out, after 20 that are
not counted, and reports the time of a step, the share of sampling in it, how much graph a step saw,
and the peak memory of set-up and of training beside what tables with their optimizer states,
content and adjacency take. An epoch is extrapolated from these steps. --whole trains with the whole
graph in every step instead. A row for each run is appended to --out; runs whose row is there are
skipped. Processes keep freed memory as docs/speed.md describes. Linux only.
"""

import argparse
import csv
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import HeteroData

from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.loader import InteractionLoader, SubgraphLoader
from gtc_pyg.models import FREEDOM, GTC, GraphRecommender, LightGCN
from gtc_pyg.transforms import ItemKNNGraph

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "growth.csv"
HEADER = [
    "what",
    "model",
    "interactions",
    "users",
    "items",
    "fan_out",
    "item_fan_out",
    "batch",
    "steps",
    "seed",
    "sampled_users",
    "sampled_items",
    "sampled_edges",
    "step_s",
    "quartile_1_s",
    "quartile_3_s",
    "sampling_s",
    "us_per_interaction",
    "epoch_extrapolated_s",
    "setup_peak_mib",
    "peak_mib",
    "tables_mib",
    "content_mib",
    "adjacency_mib",
    "threads",
    "commit",
    "versions",
]
KEY = ["what", "model", "interactions", "fan_out", "item_fan_out", "batch", "seed", "threads"]
MODALITIES, WIDTH, WARM_UP, MIB = ("image", "text"), 128, 20, 2**20
TO_ITEM, TO_USER = ("user", "rates", "item"), ("item", "rev_rates", "user")
SIMILAR = ("item", "similar", "item")
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


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
    return GTC(*size, widths) if name == "gtc" else FREEDOM(*size, widths, edge_dropout=0.0)


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


def status_mib(key: str) -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) / 1024


def optimizers_of(model: GraphRecommender, sparse: bool) -> list[torch.optim.Optimizer]:
    """Those of :class:`gtc_pyg.lightning.RecommenderModule`."""
    if not sparse:
        return [torch.optim.Adam(model.parameters(), lr=0.001, fused=True)]
    for table in (m for m in model.modules() if isinstance(m, Embedding)):
        table.sparse = True
    tables = {id(x) for x in tables_of(model)}
    rest = [p for p in model.parameters() if id(p) not in tables]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.SparseAdam(tables_of(model), lr=0.001)]
    return optimizers + ([torch.optim.Adam(rest, lr=0.001, fused=True)] if rest else [])


def touch_states(optimizers: list[torch.optim.Optimizer]) -> None:
    """Writes to all of the states, whose memory else comes bit by bit over a first epoch."""
    for optimizer in optimizers:
        for state in optimizer.state.values():
            for value in state.values():
                if isinstance(value, Tensor):
                    value.add_(0)


def measure(run: dict[str, Any]) -> dict[str, object]:
    """One size and model, in this process."""
    torch.set_num_threads(run["threads"])
    seed, whole, base = run["seed"], run["what"] == "whole graph", status_mib("VmRSS")
    data = planted(run["interactions"], seed)
    num_users, num_items = data["user"].num_nodes, data["item"].num_nodes
    num = data[TO_ITEM].edge_index.size(1)
    torch.manual_seed(seed)
    model = model_of(run["model"], data)
    optimizers = optimizers_of(model, sparse=not whole)
    generator = torch.Generator().manual_seed(seed)
    loader: InteractionLoader | SubgraphLoader
    held: list[object]
    if whole:
        inputs = GraphInputs.from_data(data)
        graph = model.training_graph(inputs.edge_index_dict, inputs.edge_weight_dict, generator)
        edges = data[TO_ITEM].edge_index
        loader = InteractionLoader(edges, num_users, num_items, run["batch"], seed)
        held = [data, loader, graph]
    else:
        fan_out = json.loads(run["fan_out"])
        hops = {TO_ITEM: fan_out, TO_USER: fan_out, SIMILAR: json.loads(run["item_fan_out"])}
        hops = {key: hops[key] for key in data.edge_types}
        loader = SubgraphLoader(data, hops, run["batch"], seed)
        held = [data, loader]
    setup = status_mib("VmHWM") - base
    ctypes.CDLL(None).malloc_trim(0)  # what set-up has freed is none of training's
    Path("/proc/self/clear_refs").write_text("5")  # the next peak is that of training
    times, sampling, sampled = [], [], []
    stream = iter(loader)
    while len(times) < run["steps"] + run["warm_up"]:
        start = time.perf_counter()
        batch = next(stream, None)
        if batch is None:
            stream = iter(loader)
            continue
        drawn = time.perf_counter()
        if whole:
            triple, features = batch, inputs.features
        else:
            triple, graph = batch.triple, model.subgraph(batch)
            features = GraphInputs.from_data(batch).features
        parts = model.loss(*triple, features, graph, generator=generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        if triple.user.numel() == run["batch"]:
            times.append(time.perf_counter() - start)
            sampling.append(drawn - start)
            num_edges = sum(adj.values().numel() for adj in graph.values())
            sampled.append((graph.num_users, graph.num_items, num_edges))
            if len(times) == 1:
                touch_states(optimizers)
    peak = status_mib("VmHWM") - base
    times, sampling = times[run["warm_up"] :], sampling[run["warm_up"] :]
    step, quartiles = statistics.median(times), statistics.quantiles(times, n=4)
    stored = stored_mib(model, data, held)
    stored["adjacency_mib"] += 8 * num / MIB  # the order of the epoch, which its iterator holds
    counts = [round(statistics.fmean(column)) for column in zip(*sampled, strict=True)]
    return {
        "users": num_users,
        "items": num_items,
        **dict(zip(("sampled_users", "sampled_items", "sampled_edges"), counts, strict=True)),
        "step_s": f"{step:.5f}",
        "quartile_1_s": f"{quartiles[0]:.5f}",
        "quartile_3_s": f"{quartiles[2]:.5f}",
        "sampling_s": f"{statistics.median(sampling):.5f}",
        "us_per_interaction": f"{1e6 * step / run['batch']:.1f}",
        "epoch_extrapolated_s": f"{step * num / run['batch']:.0f}",
        "setup_peak_mib": f"{setup:.0f}",
        "peak_mib": f"{peak:.0f}",
        **{key: f"{value:.0f}" for key, value in stored.items()},
    }


def measure_items(run: dict[str, Any]) -> dict[str, object]:
    """The exact item graph of two modalities, k = 10, in this process."""
    torch.set_num_threads(run["threads"])
    base, data = status_mib("VmRSS"), HeteroData()
    data["item"].num_nodes = num_items = run["interactions"]
    generator = torch.Generator().manual_seed(run["seed"])
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


def in_fresh_process(run: dict[str, Any]) -> dict[str, object]:
    command = [sys.executable, str(Path(__file__)), "--worker", json.dumps(run)]
    env = os.environ | KEEP | {"OMP_NUM_THREADS": str(run["threads"]), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def read_rows(path: Path = ROWS) -> list[dict[str, str]]:
    """All result rows; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: dict[str, object]) -> None:
    """Appends a row; the file is written beside and renamed."""
    rows, beside = [*read_rows(path), row], path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, path)


def runs_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the options ask for, without what only a run can tell."""
    shared = {"threads": args.threads, "seed": args.seed}
    if args.items:
        empty = dict.fromkeys(["model", "fan_out", "item_fan_out", "batch"], "")
        return [{"what": "item graph", "interactions": n, **empty, **shared} for n in args.items]
    hops = {"fan_out": json.dumps(args.fan_out), "item_fan_out": json.dumps(args.item_fan_out)}
    return [
        {
            "what": "whole graph" if args.whole else "mini-batches",
            "model": model,
            "interactions": n,
            **(dict.fromkeys(hops, "") if args.whole else hops),
            "batch": args.batch,
            "steps": args.steps,
            **shared,
        }
        for n in args.interactions
        for model in args.models
    ]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes, models = [10**5, 10**6, 10**7, 2 * 10**7], ["lightgcn", "freedom", "gtc"]
    parser.add_argument("--interactions", type=int, nargs="+", default=sizes)
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--batch", type=int, default=32, help="interactions a step (default: 32)")
    parser.add_argument(
        "--fan-out", type=int, nargs="+", default=[3, 2], help="interactions, by hop (default: 3 2)"
    )
    parser.add_argument(
        "--item-fan-out", type=int, nargs="+", default=[2, 0], help="similar items (default: 2 0)"
    )
    parser.add_argument("--steps", type=int, default=500, help="measured steps (default: 500)")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="steps before (default: 20)")
    parser.add_argument("--whole", action="store_true", help="the whole graph in every step")
    parser.add_argument("--items", type=int, nargs="+", help="measure item graphs of these sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the result rows")
    parser.add_argument("--report", action="store_true", help="write the page's tables, draw")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if len(args.fan_out) != len(args.item_fan_out):
        parser.error("--fan-out and --item-fan-out must have as many hops")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.worker:
        run = json.loads(args.worker)
        print(json.dumps((measure_items if run["what"] == "item graph" else measure)(run)))
        return
    if args.report:
        try:
            from benchmarks.growth_report import write
        except ModuleNotFoundError:  # run as a script
            from growth_report import write
        write(read_rows(args.out))
        return
    for run in runs_of(args):
        done = [[row[key] for key in KEY] for row in read_rows(args.out)]
        if [str(run[key]) for key in KEY] in done:
            continue
        row = run | in_fresh_process(run | {"warm_up": args.warm_up})
        append_row(args.out, row | {"commit": _commit(), "versions": _versions()})
        shown = ("what", "model", "interactions", "step_s", "us_per_interaction", "peak_mib")
        print(", ".join(f"{key} {row[key]}" for key in shown if row[key] != ""), flush=True)


if __name__ == "__main__":
    main()
