"""Seconds of training until validation Recall@20 first reaches LightGCN's best."""

import gc
import os
import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import Settings, build_model
from gtc_pyg.lightning import FitResult
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender
from harness import DOCS, Experiment, Options, fill
from harness.data import DATASETS, interactions, load, measured, outcome
from harness.settings import SCRIPTS, example_settings
from harness.workers import processor, seconds, warn_of_load
from time_to_quality_plot import draw
from time_to_quality_report import METRICS, MODELS, groups, texts

QUALITY = Experiment(
    "time_to_quality",
    "dataset* epochs* threads* machine* malloc* model* seed* best_epoch val_recall@20 val_ndcg@20 "
    "test_recall@20 test_ndcg@20 process commit versions train_s evaluation_s "
    "val_recall@20_by_epoch",
)
PAGE = DOCS / "time_to_quality.md"
PROCESS = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def linked_root(name: str, root: Path, work: Path) -> Path:
    """A folder below ``work`` whose raw/ is a link, so that nothing is written beside the data.

    Raises:
        FileNotFoundError: Where ``root`` has no <name>/raw.
    """
    raw = (root / name / "raw").resolve()
    if not raw.is_dir():
        raise FileNotFoundError(
            f"'--root' must be a folder that has {name}/raw (got {root}); "
            f"python examples/{SCRIPTS[name]}.py --help says where the files come from"
        )
    linked = work / name
    linked.mkdir(parents=True, exist_ok=True)
    if not (linked / "raw").exists():
        (linked / "raw").symlink_to(raw)
    return linked


def train(
    model: str, dataset: InteractionDataset, settings: Settings, seed: int, **options: Any
) -> tuple[FitResult, float]:
    """One run as the example script makes it, and the seconds in which the model was prepared."""
    starts, prepare = [0.0], GraphRecommender.prepare

    def timed(*args: Any, **more: Any) -> None:
        starts.extend(seconds(lambda: prepare(*args, **more)))

    gc.collect()
    with mock.patch.object(GraphRecommender, "prepare", timed):
        return measured(model, dataset, settings, seed, **options), sum(starts)


@torch.no_grad()
def untrained(
    model: str, dataset: InteractionDataset, settings: Settings, seed: int
) -> tuple[float, float]:
    """Validation Recall@20 of what a run begins with, and the seconds of this evaluation."""
    torch.manual_seed(seed)  # as train() in gtc_pyg.experiment
    network = build_model(model, dataset, settings.modalities, **settings.model)
    inputs = GraphInputs.from_data(dataset[0], settings.modalities)
    graph = inputs.edge_index_dict, inputs.edge_weight_dict
    network.prepare(*graph, spectral_start=settings.spectral_start)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as Lightning's "auto"
    network, inputs = network.to(device).eval(), inputs.to(device)
    known, held_out = (interactions(dataset, split).to(device) for split in ("train", "val"))
    start = time.perf_counter()
    tables = network(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
    recall = evaluate(*tables, held_out, [known])["Recall@20"]
    return recall, time.perf_counter() - start


def row_of(result: FitResult, start: float, before: tuple[float, float]) -> dict[str, object]:
    """The row of a run; the seconds of its start, and ``before``, :func:`untrained` of it."""
    recall, evaluation = before
    recalls = [recall, *(row["val/Recall@20"] for row in result.history)]
    return outcome(result, ["best_epoch", *METRICS]) | {
        "process": PROCESS,
        "train_s": " ".join(f"{s:.4f}" for s in [start, *result.seconds]),
        "evaluation_s": " ".join(f"{s:.4f}" for s in [evaluation, *result.evaluation_seconds]),
        "val_recall@20_by_epoch": " ".join(f"{value:.7f}" for value in recalls),
    }


def run(args: Namespace) -> None:
    """All runs that have no row yet, dataset by dataset, seed by seed."""
    warn_of_load()
    malloc = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")]
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    shared = {"epochs": args.epochs or "example's", "threads": torch.get_num_threads()}
    shared |= {"machine": machine, "malloc": " ".join(malloc) or "default"}
    grid = [
        {"dataset": name, **shared, "model": model, "seed": seed}
        for name in args.datasets
        for seed in args.seed
        for turn in [seed % len(args.models)]
        for model in [*args.models[turn:], *args.models[:turn]]
    ]
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)

        @cache
        def given(name: str) -> tuple[InteractionDataset, Mapping[str, Settings]]:
            root = work if name == "planted" else linked_root(name, args.root, work)
            return load(name, root), example_settings(name)

        def measure(cell: Mapping[str, Any]) -> dict[str, object]:
            dataset, settings = given(cell["dataset"])
            run = cell["model"], dataset, settings[cell["model"]], cell["seed"]
            train(*run, epochs=1)
            more = {"epochs": args.epochs} if args.epochs else {}
            return row_of(*train(*run, **more), untrained(*run))

        QUALITY.run(grid, measure, args.out)


def report(args: Namespace) -> None:
    rows = QUALITY.rows(args.out)
    fill(PAGE, texts(rows))
    if groups(rows):
        draw(rows)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, QUALITY.path, seeds=range(3), threads=None)
    root = Path(os.environ.get("GTC_PYG_DATA") or "data")
    parser.add("--root", root, help="folder with <dataset>/raw, or the variable GTC_PYG_DATA")
    parser.add("--datasets", list(DATASETS), choices=list(SCRIPTS))
    parser.add("--models", MODELS, choices=MODELS)
    parser.add("--epochs", type=int, help="largest number, or the example's")
    parser.add("--work", type=Path, help="folder of processed data")
    parser.start(argv, run, report)


if __name__ == "__main__":
    main()
