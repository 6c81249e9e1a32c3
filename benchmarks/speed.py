"""Seconds and memory of a training step: GTC, FREEDOM and LightGCN beside PyG's LightGCN.

    python benchmarks/speed.py --dataset tiktok --root data/tiktok --json tiktok.json
    python benchmarks/speed.py --dataset planted --rounds 4            # no data needed
    python benchmarks/speed.py --dataset tiktok --malloc keep          # glibc keeps freed memory
    python benchmarks/speed.py --dataset tiktok --negatives            # negatives as well
    python benchmarks/speed.py --dataset tiktok --profile              # and the slowest operators
    python benchmarks/speed.py --report                                # fills docs/speed.md

Each model has a process of its own. Turn by turn, in alternating order, each is told to take a few
steps while the others wait, so that a noisy machine slows all alike. A step draws a batch and its
negatives, computes the loss and its gradient and updates by Adam. The first step of a turn is not
timed: it finds the caches of another process. docs/speed.md says what the figures mean. Linux only.

    gtc                     with the settings of the dataset's example script
    freedom, lightgcn       ours, two layers on all interactions like PyG's example
    pyg_lightgcn            torch_geometric.nn.LightGCN with edge_index, as PyG's example has it
    pyg_lightgcn_bare       the same where torch-scatter and torch-sparse cannot be imported
    pyg_lightgcn_sparse     the same with a torch_sparse.SparseTensor
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import runpy
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from gtc_pyg import datasets
from gtc_pyg.experiment import Settings, _commit, _versions
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.speed_report import PAGE, TABLES, read_results, title, with_tables
from benchmarks.speed_worker import OURS, spread

ROOT = Path(__file__).parents[1]
DATASETS = {
    "tiktok": ("TikTok", "tiktok.py"),
    "lfm2k": ("LFM2k", "lfm2k.py"),
    "planted": ("PlantedPreferences", "quickstart.py"),
}
REFERENCE = "pyg_lightgcn"
LIKE_PYG = {  # what is searched for accuracy has other numbers of layers, and prunes
    "freedom": Settings(model={"num_layers": 2, "edge_dropout": 0.0}),
    "lightgcn": Settings(model={"num_layers": 2}),
}
# Blocks of up to 32 MiB, glibc's limit, lie on the heap, which is not given back below 1 GiB.
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}


class Worker:
    """A process of its own for one model."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        env = os.environ | (KEEP if options["malloc"] == "keep" else {})
        script = str(Path(__file__).with_name("speed_worker.py"))
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, script, json.dumps(options | {"name": name})],
            env=env | {"OMP_NUM_THREADS": str(options["threads"]), "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *command: object) -> Any:
        """The answer to a command, a method of :class:`benchmarks.speed_worker.Task`."""
        try:
            print(json.dumps(command), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())  # type: ignore[union-attr]
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise RuntimeError(f"the process of {self.name} ended at {command[0]!r}") from error


def prepare(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Writes what the workers load, and returns what they are told."""
    kind, script = DATASETS[args.dataset]
    graph = ItemKNNGraph(k=10)
    settings = runpy.run_path(str(ROOT / "examples" / script))["SETTINGS"] | LIKE_PYG
    if args.dataset == "planted":
        dataset = datasets.PlantedPreferences(transform=graph)
    else:
        dataset = getattr(datasets, kind)(args.root, pre_transform=graph)
    inputs, sizes = GraphInputs.from_data(dataset[0]), (dataset.num_users, dataset.num_items)
    train = dataset.view("train")["user", "rates", "item"].edge_label_index
    tensors = {"features": inputs.features, "train": train}
    edges = {"edges": inputs.edge_index_dict, "weights": inputs.edge_weight_dict}
    torch.save(tensors | edges | dict(zip(("num_users", "num_items"), sizes, strict=True)), path)
    chosen = {
        name: {
            "lr": of.lr,
            "model": dict(of.model),
            "modalities": of.modalities,
            "weight_averaging": of.weight_averaging,
        }
        for name, of in settings.items()
    }
    shared = ("batch_size", "seed", "threads", "malloc", "device")
    graph_size = dict(zip(("users", "items", "interactions"), (*sizes, train.size(1)), strict=True))
    return {
        "graph": graph_size | {name: x.size(1) for name, x in inputs.features.items()},
        "data": str(path),
        "settings": chosen,
        **{key: getattr(args, key) for key in shared},
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that stands in the JSON file."""
    names, load = args.models, os.getloadavg()[0]
    if load > 0.5:
        print(f"others keep {load:.1f} cores busy: times will be too long", file=sys.stderr)
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        options = prepare(args, Path(folder) / "data.pt")
        try:
            workers = [Worker(name, options) for name in [*names, "gtc"]]
            *models, probe = workers  # a second process of GTC is looked into
            for model in workers:
                model.ask("time", 3)
            shapes = probe.ask("count", 2)["shapes"]
            seconds: dict[str, list[list[float]]] = {name: [] for name in names}
            counts, rates = [], []
            for turn in range(args.rounds):
                for model in models[:: 1 - 2 * (turn % 2)]:
                    seconds[model.name].append(model.ask("time", args.steps))
                counts.append(probe.ask("count", 1)["groups"])
                rates.append(probe.ask("rates", shapes, args.square, args.copied))
            about = {model.name: model.ask("about") for model in models}
            negatives = None
            if args.negatives:
                negatives = probe.ask("negatives", args.rounds, args.batch_size)
            if args.profile:
                for model in models:
                    print(model.name, model.ask("profile", 5), sep="\n")
        finally:
            for model in workers:
                model.process.communicate()  # closes its input, at which it ends
    versions = [f"{part} {importlib.metadata.version(part)}" for part in extras()]
    shared = ("dataset", "batch_size", "seed", "malloc", "device", "rounds", "steps")
    result = {
        **{key: getattr(args, key) for key in shared},
        "graph": options["graph"],
        "machine": {"cpu": _cpu(), "cores": os.cpu_count(), "threads": args.threads, "load": load},
        **summary(seconds, about, counts, rates),
        "negatives": negatives,
        "commit": _commit(),
        "versions": "; ".join([_versions(), *versions]),
    }
    return json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.6g}"))


def extras() -> list[str]:
    """Which of torch-scatter and torch-sparse are installed."""
    return [part for part in ("torch_scatter", "torch_sparse") if importlib.util.find_spec(part)]


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def summary(
    seconds: dict[str, list[list[float]]],
    about: dict[str, dict[str, Any]],
    counts: list[dict[str, dict[str, float]]],
    rates: list[dict[str, float]],
) -> dict[str, Any]:
    """Medians, ratios and the floor.

    Args:
        seconds: Of each step of each turn of each model.
        about: Each model's peak memory, and what else its process tells of itself.
        counts: Of each turn: operations, bytes, seconds and calls of GTC's step by group.
        rates: Of each turn.
    """
    turns = {name: [statistics.median(turn) for turn in some] for name, some in seconds.items()}
    models, ratios = {}, {}
    for name, some in seconds.items():
        every = [step for turn in some for step in turn]
        q1, step, q3 = statistics.quantiles(every, n=4, method="inclusive")
        models[name] = {"step_s": step, "q1": q1, "q3": q3, "mean_s": statistics.fmean(every)}
        models[name] |= about[name]
        share = about[name]["peak_mib"] / about[REFERENCE]["peak_mib"]
        ratios[name] = spread(turns[name], turns[REFERENCE]) | {"memory": share}
    floors = [floor(*pair) for pair in zip(counts, rates, strict=True)]
    floor_s = [each["floor_s"] for each in floors]
    groups = {
        group: _medians([count[group] for count in counts if group in count]) for group in counts[0]
    }
    return {
        "models": models,
        "ratios": ratios,
        "flops": sum(row["flops"] for row in groups.values()),
        "bytes": sum(row["bytes"] for row in groups.values()),
        **_medians(floors),
        "floor_ratio": spread(turns["gtc"], floor_s),
        "groups": groups,
        "rates": _medians(rates),
    }


def floor(groups: dict[str, dict[str, float]], rates: dict[str, float]) -> dict[str, float]:
    """Seconds below which a step cannot be, by its products and by its bytes.

    The rates of products were measured with their operands moved, so that the sum counts those
    twice: the floor is the larger of the two.
    """
    dense, sparse = (groups[f"{key} products"]["flops"] / rates[key] for key in ("dense", "sparse"))
    moved = sum(row["bytes"] for row in groups.values()) / rates["copy"]
    return {
        "floor_s": max(dense + sparse, moved),
        "floor_products_s": dense + sparse,
        "floor_bytes_s": moved,
        "floor_sum_s": dense + sparse + moved,
    }


def _medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def write(path: Path, text: str) -> None:
    """Beside its place, then renamed."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(text)
    beside.replace(path)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""

    def at_least(least: int) -> Any:
        def number(text: str) -> int:
            if not text.isdigit() or int(text) < least:
                raise argparse.ArgumentTypeError(f"expected {least} or more, got {text!r}")
            return int(text)

        return number

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", choices=list(DATASETS), default="tiktok")
    parser.add_argument("--root", help="folder with raw/ (default: data/<dataset>)")
    known = [*OURS, REFERENCE, *([f"{REFERENCE}_bare"] if extras() else [])]
    known += [f"{REFERENCE}_sparse"] if "torch_sparse" in extras() else []
    parser.add_argument(
        "--models",
        nargs="+",
        choices=known,
        default=known,
        help=f"gtc and {REFERENCE} are always among them (default: all that can be run)",
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--steps", type=at_least(1), default=5, help="timed in a turn (default: 5)")
    parser.add_argument("--rounds", type=at_least(2), default=10, help="turns (default: 10)")
    parser.add_argument("--threads", type=at_least(1), help="of each process (default: PyTorch's)")
    parser.add_argument("--batch-size", type=at_least(1), default=2048, help="(default: 2048)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    parser.add_argument(
        "--malloc",
        choices=["default", "keep"],
        default="default",
        help="glibc's thresholds in all processes: left alone, or so that it keeps freed memory",
    )
    parser.add_argument("--square", type=at_least(1), default=2048, help=argparse.SUPPRESS)
    parser.add_argument("--copied", type=at_least(1), default=2**26, help=argparse.SUPPRESS)
    parser.add_argument("--negatives", action="store_true", help="measure negatives as well")
    parser.add_argument("--profile", action="store_true", help="print each model's slow operators")
    parser.add_argument("--report", action="store_true", help="fill docs/speed.md, measure nothing")
    args = parser.parse_args(argv)
    args.root = args.root or f"data/{args.dataset}"
    args.threads = args.threads or torch.get_num_threads()
    args.models = [name for name in known if name in {"gtc", REFERENCE, *args.models}]
    return args


def main(args: argparse.Namespace) -> None:
    """Measures and prints, or fills the page."""
    if args.report:
        write(PAGE, with_tables(PAGE.read_text(), read_results()))
        return
    torch.set_num_threads(args.threads)
    result = measure(args)
    for table in TABLES.values():
        print(title(result), table(result), "", sep="\n\n")
    if args.json:
        write(args.json, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main(parse_args())
