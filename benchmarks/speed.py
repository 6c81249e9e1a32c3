"""Seconds and memory of a training step: GTC, FREEDOM and LightGCN beside PyG's LightGCN."""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch

from gtc_pyg.experiment import Settings
from gtc_pyg.lightning import GraphInputs
from harness import Options, fill, source, write_text
from harness.data import interactions, load
from harness.settings import example_settings
from harness.workers import KEEP, Worker, processor, ratios, warn_of_load
from speed_report import PAGE, TABLES, read_results, texts, title
from speed_worker import OURS

REFERENCE = "pyg_lightgcn"
PLAIN: dict[str, Any] = {"spectral_start": False, "weight_averaging": 0.0}
LIKE_PYG = {  # what is searched for accuracy has other numbers of layers, and prunes
    "freedom": Settings(model={"num_layers": 2, "edge_dropout": 0.0}, **PLAIN),
    "lightgcn": Settings(model={"num_layers": 2}, **PLAIN),
}
HIDE = "import sys; sys.modules.update(torch_scatter=None, torch_sparse=None)"  # as not installed


def start(name: str, options: dict[str, Any]) -> Worker:
    """A process of its own for one model."""
    env = {"OMP_NUM_THREADS": str(options["threads"])}
    env |= KEEP if options["malloc"] == "keep" else {}
    before = HIDE if name.endswith("_bare") else "pass"
    return Worker(name, "speed_worker", options | {"name": name}, before, **env)


def prepare(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Writes what the workers load, and returns what they are told."""
    dataset = load(args.dataset, args.root)
    inputs, sizes = GraphInputs.from_data(dataset[0]), (dataset.num_users, dataset.num_items)
    train, names = interactions(dataset, "train"), ("num_users", "num_items")
    tensors = {"features": inputs.features, "train": train, "edges": inputs.edge_index_dict}
    tensors |= {"weights": inputs.edge_weight_dict, **dict(zip(names, sizes, strict=True))}
    torch.save(tensors, path)
    settings = example_settings(args.dataset) | LIKE_PYG
    told = ("lr", "modalities", "spectral_start", "weight_averaging")
    chosen = {
        name: {"model": dict(of.model), **{key: getattr(of, key) for key in told}}
        for name, of in settings.items()
    }
    shared = ("batch_size", "seed", "threads", "malloc", "device")
    graph = dict(zip(("users", "items", "interactions"), (*sizes, train.size(1)), strict=True))
    return {
        "graph": graph | {name: x.size(1) for name, x in inputs.features.items()},
        "data": str(path),
        "settings": chosen,
        **{key: getattr(args, key) for key in shared},
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that stands in the JSON file."""
    names, load, negatives = args.models, warn_of_load(), None
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        options = prepare(args, Path(folder) / "data.pt")
        try:
            workers = [start(name, options) for name in [*names, "gtc"]]
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
            if args.negatives:
                negatives = probe.ask("negatives", args.rounds, args.batch_size)
            for model in models if args.profile else []:
                print(model.name, model.ask("profile", 5), sep="\n")
        finally:
            for model in workers:
                model.process.communicate()  # closes its input, at which it ends
    more = [f"{part} {importlib.metadata.version(part)}" for part in extras()]
    machine = {"cpu": processor(), "cores": os.cpu_count(), "threads": args.threads, "load": load}
    shared, made = (
        ("dataset", "batch_size", "seed", "malloc", "device", "rounds", "steps"),
        source(),
    )
    result = {
        **{key: getattr(args, key) for key in shared},
        "graph": options["graph"],
        "machine": machine,
        **summary(seconds, about, counts, rates),
        "negatives": negatives,
        **made,
        "versions": "; ".join([made["versions"], *more]),
    }
    return json.loads(json.dumps(result), parse_float=lambda text: float(f"{float(text):.6g}"))


def extras() -> list[str]:
    """Which of torch-scatter and torch-sparse are installed."""
    return [part for part in ("torch_scatter", "torch_sparse") if importlib.util.find_spec(part)]


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
    models, relative = {}, {}
    for name, some in seconds.items():
        every = [step for turn in some for step in turn]
        q1, step, q3 = statistics.quantiles(every, n=4, method="inclusive")
        models[name] = {"step_s": step, "q1": q1, "q3": q3, "mean_s": statistics.fmean(every)}
        models[name] |= about[name]
        share = about[name]["peak_mib"] / about[REFERENCE]["peak_mib"]
        relative[name] = ratios(turns[name], turns[REFERENCE]) | {"memory": share}
    floors = [floor(*pair) for pair in zip(counts, rates, strict=True)]
    floor_s = [each["floor_s"] for each in floors]
    groups = {
        group: _medians([count[group] for count in counts if group in count]) for group in counts[0]
    }
    return {
        "models": models,
        "ratios": relative,
        "flops": sum(row["flops"] for row in groups.values()),
        "bytes": sum(row["bytes"] for row in groups.values()),
        **_medians(floors),
        "floor_ratio": ratios(turns["gtc"], floor_s),
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


def options() -> Options:
    parser = Options(__file__, datasets=["tiktok", "lfm2k", "planted"], threads=None)
    known = [*OURS, REFERENCE, *([f"{REFERENCE}_bare"] if extras() else [])]
    known += [f"{REFERENCE}_sparse"] if "torch_sparse" in extras() else []
    always = f"gtc and {REFERENCE} are always among them"
    parser.add("--models", known, choices=known, help=always)
    parser.add("--json", type=Path, help="write all figures to this file")
    parser.add("--steps", 5, help="timed in a turn")
    parser.add("--rounds", 10, help="turns, two or more")
    parser.add("--batch-size", 2048)
    parser.add("--seed", 0)
    parser.add("--device", "cpu", help="cpu or cuda")
    malloc = "glibc's thresholds in all processes: left alone, or so that it keeps freed memory"
    parser.add("--malloc", "default", choices=["default", "keep"], help=malloc)
    parser.add("--square", 2048, help="rows of the square product")
    parser.add("--copied", 2**26, help="numbers that are copied")
    parser.add("--negatives", False, help="measure negatives as well")
    parser.add("--profile", False, help="print each model's slow operators")
    return parser


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """The options, with the models that are always there.

    Raises:
        SystemExit: Where a number is too small.
    """
    for name, least in {"steps": 1, "rounds": 2, "batch_size": 1}.items():
        if getattr(args, name) < least:
            options().error(f"--{name} must be {least} or more (got {getattr(args, name)})")
    args.threads = args.threads or torch.get_num_threads()
    wanted = {"gtc", REFERENCE, *args.models}
    args.models = [name for name in options().get_default("models") if name in wanted]
    return args


def run(args: argparse.Namespace) -> None:
    result = measure(checked(args))
    for table in TABLES.values():
        print(title(result), table(result), "", sep="\n\n")
    if args.json:
        write_text(args.json, json.dumps(result, indent=1) + "\n")


def main(argv: list[str] | None = None) -> None:
    options().start(argv, run, lambda args: fill(PAGE, texts(read_results())))


if __name__ == "__main__":
    main()
