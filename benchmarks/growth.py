"""Time per interaction and memory of training on mini-batches, as graphs grow.

    python benchmarks/growth.py                                  # 10^5 to 2 x 10^7 interactions
    python benchmarks/growth.py --interactions 100000 1000000 --models gtc
    python benchmarks/growth.py --items 300000                   # item graphs, all pairs

Planted graphs with 20 interactions a user and 67 an item, so 2 x 10^7 have 1,000,000 users and
300,000 items, and two modalities of width 128. Users and items belong to groups; four interactions
of five stay within one. An item's ten similar items are drawn from its group (that graph's own cost
is measured by --items). Each size has a process of its own. It trains --steps steps of 2,048
interactions at a fixed fan-out, after 20 that are not counted, and reports the time of a step, the
share of sampling in it, and the peak memory of the process beside what the tables with their
optimizer states, content, and adjacency take. An epoch is extrapolated from these steps. A row for
each run is appended to --out; runs whose row is there are skipped.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch.nn import Embedding
from torch_geometric.data import HeteroData

from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.loader import SubgraphLoader
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
    "batch",
    "steps",
    "seed",
    "step_s",
    "quartile_1_s",
    "quartile_3_s",
    "sampling_s",
    "us_per_interaction",
    "epoch_extrapolated_s",
    "peak_mib",
    "expected_mib",
    "threads",
    "commit",
    "versions",
]
KEY = ["what", "model", "interactions", "fan_out", "batch", "threads"]
WIDTH, BATCH, WARM_UP = 128, 2048, 20
TO_ITEM, TO_USER = ("user", "rates", "item"), ("item", "rev_rates", "user")


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
    group = (torch.arange(num_items) // size).clamp(max=num_groups - 1)
    data = HeteroData()
    data["user"].num_nodes, data["item"].num_nodes = num_users, num_items
    for name in ("image", "text"):
        centres = torch.randn(num_groups, WIDTH, generator=g)
        noise = torch.randn(num_items, WIDTH, generator=g)
        data["item"][f"x_{name}"] = noise.add_(centres[group])
    data[TO_ITEM].edge_index, data[TO_USER].edge_index = edge_index, edge_index.flip(0)
    target = torch.arange(num_items).repeat_interleave(10)
    source = group[target] * size + torch.randint(size, target.shape, generator=g)
    similar = data["item", "similar", "item"]
    similar.edge_index = torch.stack([source, target])
    similar.edge_weight = torch.full(target.shape, 0.1)
    return data


def model_of(name: str, data: HeteroData) -> GraphRecommender:
    size = (data["user"].num_nodes, data["item"].num_nodes)
    widths = {"image": WIDTH, "text": WIDTH}
    if name == "lightgcn":
        return LightGCN(*size)
    return GTC(*size, widths) if name == "gtc" else FREEDOM(*size, widths, edge_dropout=0.0)


def expected_mib(model: GraphRecommender, data: HeteroData) -> float:
    """Tables with both states of Adam, content, and each adjacency with its sorted form, in MiB:
    what grows with the graph."""
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, Embedding))
    content = sum(data["item"][f"x_{name}"].numel() for name in ("image", "text"))
    edges = sum(data[key].edge_index.numel() for key in data.edge_types)
    return (3 * 4 * tables + 4 * content + 2 * 8 * edges) / 2**20


def status_mib(key: str) -> float:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key)) / 1024


def measure(run: dict[str, int | str | list[int]]) -> dict[str, object]:
    """One size and model, in this process."""
    torch.set_num_threads(int(str(run["threads"])))
    seed, steps = int(str(run["seed"])), int(str(run["steps"]))
    base = status_mib("VmRSS")
    data = planted(int(str(run["interactions"])), seed)
    torch.manual_seed(seed)
    model = model_of(str(run["model"]), data)
    tables = [m for m in model.modules() if isinstance(m, Embedding)]
    for table in tables:
        table.sparse = True
    weights = {table.weight for table in tables}
    rest = [p for p in model.parameters() if p not in weights]
    optimizers: list[torch.optim.Optimizer] = [torch.optim.SparseAdam(list(weights), lr=0.001)]
    optimizers += [torch.optim.Adam(rest, lr=0.001, fused=True)] if rest else []
    loader = SubgraphLoader(data, json.loads(str(run["fan_out"])), BATCH, seed)
    generator, times, sampling = torch.Generator().manual_seed(seed), [], []
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of training
    stream = iter(loader)
    while len(times) < steps + WARM_UP:
        start = time.perf_counter()
        batch = next(stream, None)
        if batch is None:
            stream = iter(loader)
            continue
        sampled = time.perf_counter()
        features = {name: batch["item"][f"x_{name}"] for name in ("image", "text")}
        parts = model.loss(*batch.triple, features, model.subgraph(batch), generator=generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        torch.stack(list(parts.values())).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
        if batch.triple.user.numel() == BATCH:
            times.append(time.perf_counter() - start)
            sampling.append(sampled - start)
    times, sampling = times[WARM_UP:], sampling[WARM_UP:]
    step, quartiles = statistics.median(times), statistics.quantiles(times, n=4)
    num = data[TO_ITEM].edge_index.size(1)
    return {
        "users": data["user"].num_nodes,
        "items": data["item"].num_nodes,
        "step_s": f"{step:.4f}",
        "quartile_1_s": f"{quartiles[0]:.4f}",
        "quartile_3_s": f"{quartiles[2]:.4f}",
        "sampling_s": f"{statistics.median(sampling):.4f}",
        "us_per_interaction": f"{1e6 * step / BATCH:.2f}",
        "epoch_extrapolated_s": f"{step * num / BATCH:.0f}",
        "peak_mib": f"{status_mib('VmHWM') - base:.0f}",
        "expected_mib": f"{expected_mib(model, data):.0f}",
    }


def measure_items(run: dict[str, int | str | list[int]]) -> dict[str, object]:
    """The exact item graph of two modalities, k = 10, in this process."""
    torch.set_num_threads(int(str(run["threads"])))
    num_items, base = int(str(run["interactions"])), status_mib("VmRSS")
    data = HeteroData()
    data["item"].num_nodes = num_items
    g = torch.Generator().manual_seed(int(str(run["seed"])))
    for name in ("image", "text"):
        data["item"][f"x_{name}"] = torch.randn(num_items, WIDTH, generator=g)
    content = 2 * 4 * WIDTH * num_items / 2**20
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    ItemKNNGraph(k=10, progress=True)(data)
    seconds = time.perf_counter() - start
    return {
        "items": num_items,
        "step_s": f"{seconds:.1f}",
        "us_per_interaction": f"{1e6 * seconds / num_items:.1f}",
        "peak_mib": f"{status_mib('VmHWM') - base:.0f}",
        "expected_mib": f"{content:.0f}",
    }


def in_fresh_process(run: dict[str, object]) -> dict[str, object]:
    command = [sys.executable, str(Path(__file__)), "--worker", json.dumps(run)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def read_rows(path: Path = ROWS) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: dict[str, object]) -> None:
    rows, beside = [*read_rows(path), row], path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = [10**5, 10**6, 10**7, 2 * 10**7]
    parser.add_argument("--interactions", type=int, nargs="+", default=sizes)
    parser.add_argument("--models", nargs="+", default=["lightgcn", "freedom", "gtc"])
    parser.add_argument("--fan-out", type=int, nargs="+", default=[10, 5, 5])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--items", type=int, nargs="+", help="measure item graphs of these sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the result rows")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.worker:
        run = json.loads(args.worker)
        print(json.dumps((measure_items if run["what"] == "item graph" else measure)(run)))
        return
    shared = {"threads": args.threads, "seed": args.seed}
    if args.items:
        runs = [
            {"what": "item graph", "interactions": n, "model": "", "fan_out": "", "batch": ""}
            for n in args.items
        ]
    else:
        runs = [
            {
                "what": "training",
                "model": model,
                "interactions": n,
                "fan_out": json.dumps(args.fan_out),
                "batch": BATCH,
                "steps": args.steps,
            }
            for n in args.interactions
            for model in args.models
        ]
    for run in runs:
        run |= shared
        done = [[row[key] for key in KEY] for row in read_rows(args.out)]
        if [str(run[key]) for key in KEY] in done:
            continue
        row = run | in_fresh_process(run) | {"commit": _commit(), "versions": _versions()}
        append_row(args.out, row)
        shown = ("what", "model", "interactions", "step_s", "us_per_interaction", "peak_mib")
        print(", ".join(f"{key} {row[key]}" for key in shown if row[key] != ""), flush=True)


if __name__ == "__main__":
    main()
