"""Seconds of training until validation Recall@20 first reaches LightGCN's best.

    python benchmarks/time_to_quality.py --root data --seed 0 1 2   # data/tiktok/raw and so on
    python benchmarks/time_to_quality.py --datasets lfm2k --models lightgcn gtc
    python benchmarks/time_to_quality.py --datasets planted --epochs 5 --out try.csv   # no data
    python benchmarks/time_to_quality.py --report                   # tables, plot, page

A run is that of the dataset's example script: the script is started, and what it hands to its
runner (dataset and settings) is trained by the same runner. The models of one dataset and seed run
one after the other in one process, the first one changing with the seed; before the clock starts,
each trains one epoch that is thrown away. Files are written to --work, never beside the data.

A row for each run is appended to --out: the seconds of every epoch, of every evaluation, and what
validation said, each list beginning with the start, before the first epoch. Runs whose row is there
are skipped, so an interrupted command can be repeated; after a change of the code, begin with
another file.
"""

import argparse
import contextlib
import gc
import io
import os
import platform
import runpy
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gtc_pyg import experiment
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import Settings, _commit, _versions, build_model
from gtc_pyg.lightning import FitResult
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, read_rows, write_text
from benchmarks.time_to_quality_plot import draw
from benchmarks.time_to_quality_report import (
    KEY,
    LISTS,
    METRICS,
    MODELS,
    groups,
    with_tables,
)

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "time_to_quality.csv"
PAGE = ROOT / "docs" / "time_to_quality.md"
EXAMPLES = {
    "tiktok": "tiktok.py",
    "lfm2k": "lfm2k.py",
    "baby": "baby.py",
    "planted": "quickstart.py",
}
REAL = ["tiktok", "lfm2k", "baby"]
HEADER = [*KEY, "best_epoch", *METRICS, "process", "commit", "versions", *LISTS]
PROCESS = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class _HandedOver(Exception):
    """Ends an example script where it would begin to train."""


def example(name: str, root: Path) -> tuple[InteractionDataset, Mapping[str, Settings]]:
    """What the example script of a dataset hands to its runner."""
    script = str(ROOT / "examples" / EXAMPLES[name])
    options = [] if name == "planted" else ["--root", str(root)]
    handed: list[tuple] = []

    def runner(*args: object) -> None:
        handed.append(args)
        raise _HandedOver

    with (
        mock.patch.object(experiment, "run", runner),
        mock.patch.object(sys, "argv", [script, *options]),
        contextlib.suppress(_HandedOver),
    ):
        runpy.run_path(script, run_name="__main__")
    _, dataset, settings, _ = handed[0]
    return dataset, settings


def linked_root(name: str, root: Path, work: Path) -> Path:
    """A folder below ``work`` whose raw/ is a link, so that nothing is written beside the data.

    Raises:
        FileNotFoundError: Where ``root`` has no <name>/raw.
    """
    raw = (root / name / "raw").resolve()
    if not raw.is_dir():
        raise FileNotFoundError(
            f"'--root' must be a folder that has {name}/raw (got {root}); "
            f"python examples/{EXAMPLES[name]} --help says where the files come from"
        )
    linked = work / name
    linked.mkdir(parents=True, exist_ok=True)
    if not (linked / "raw").exists():
        (linked / "raw").symlink_to(raw)
    return linked


def train(
    name: str,
    model: str,
    seed: int,
    epochs: int | None,
    dataset: InteractionDataset,
    settings: Mapping[str, Settings],
    logs: Path,
    rows: Path | None = None,
) -> tuple[FitResult, float]:
    """One run as the example script makes it, without its table and its progress bar.

    With it the seconds that the model took to start from the interactions and to make its low-pass
    filter. Its metrics are appended to ``rows``, as the script's ``--out`` does.
    """
    more = ["--epochs", str(epochs)] if epochs else []
    more += ["--out", str(rows)] if rows else []
    options = ["--models", model, "--seed", str(seed), *more, "--logs", str(logs), "--quiet"]
    args = experiment.parse_args(None, argv=options)
    starts = [0.0]

    def timed(method: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            before = time.perf_counter()
            method(*args)
            starts.append(time.perf_counter() - before)

        return call

    gc.collect()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        for name_of in ("start_from", "fit_low_pass"):
            method = timed(getattr(GraphRecommender, name_of))
            stack.enter_context(mock.patch.object(GraphRecommender, name_of, method))
        return experiment.run(name, dataset, settings, args)[model][0], sum(starts)


def untrained(
    model: str, seed: int, dataset: InteractionDataset, settings: Settings
) -> tuple[float, float]:
    """Validation Recall@20 of what a run begins with, and the seconds of this evaluation."""
    torch.manual_seed(seed)  # as train() in gtc_pyg.experiment
    network = build_model(
        model, dataset, settings.modalities, settings.spectral_start, **settings.model
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")  # as Lightning's "auto"
    inputs = GraphInputs.from_data(dataset[0], settings.modalities).to(device)
    known, held_out = (
        dataset.view(split)["user", "rates", "item"].edge_label_index.to(device)
        for split in ("train", "val")
    )
    network = network.to(device).eval()
    start = time.perf_counter()
    with torch.no_grad():
        tables = network(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
        recall = evaluate(*tables, held_out, [known])["Recall@20"]
    return recall, time.perf_counter() - start


def row_of(
    key: Mapping[str, object], result: FitResult, start: float, before: tuple[float, float]
) -> dict[str, object]:
    """The row of a run; the seconds of its start, and ``before``, :func:`untrained` of it."""
    recall, evaluation = before
    recalls = [recall, *(row["val/Recall@20"] for row in result.history)]
    return {
        **key,
        "best_epoch": result.best_epoch,
        "val_recall@20": f"{result.val['Recall@20']:.6f}",
        "val_ndcg@20": f"{result.val['NDCG@20']:.6f}",
        "test_recall@20": f"{result.test['Recall@20']:.6f}",
        "test_ndcg@20": f"{result.test['NDCG@20']:.6f}",
        "process": PROCESS,
        "commit": _commit(),
        "versions": _versions(),
        "train_s": " ".join(f"{s:.4f}" for s in [start, *result.seconds]),
        "evaluation_s": " ".join(f"{s:.4f}" for s in [evaluation, *result.evaluation_seconds]),
        "val_recall@20_by_epoch": " ".join(f"{value:.7f}" for value in recalls),
    }


def run(args: argparse.Namespace) -> None:
    """All runs that have no row yet, dataset by dataset, seed by seed."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"others keep {load:.1f} cores busy: times will be too long", file=sys.stderr)
    shared = {
        "epochs": args.epochs or "example's",
        "threads": torch.get_num_threads(),
        "machine": _machine(),
        "malloc": _malloc(),
    }
    with tempfile.TemporaryDirectory() as folder:
        work = args.work or Path(folder)
        for name in args.datasets:
            dataset, settings = None, {}
            for seed in args.seed:
                turn = seed % len(args.models)
                for model in [*args.models[turn:], *args.models[:turn]]:
                    key = {"dataset": name, **shared, "model": model, "seed": seed}
                    done = [[row[k] for k in KEY] for row in read_rows(args.out)]
                    if [str(key[k]) for k in KEY] in done:
                        continue
                    if dataset is None:
                        root = work if name == "planted" else linked_root(name, args.root, work)
                        dataset, settings = example(name, root)
                    given = dataset, settings, work / "logs"
                    with contextlib.redirect_stderr(io.StringIO()):
                        train(name, model, seed, 1, *given)
                    result, start = train(name, model, seed, args.epochs, *given, args.metrics)
                    before = untrained(model, seed, dataset, settings[model])
                    append_rows(args.out, HEADER, [row_of(key, result, start, before)])
                    shown = f"{name} {model} seed {seed}: {len(result.seconds)} epochs"
                    print(f"{shown}, {sum(result.seconds):.1f} s", file=sys.stderr, flush=True)


def _machine() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _malloc() -> str:
    chosen = [f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith("MALLOC_")]
    return " ".join(chosen) or "default"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("GTC_PYG_DATA") or "data"),
        help="folder with <dataset>/raw (default: the variable GTC_PYG_DATA, else data)",
    )
    parser.add_argument("--datasets", nargs="+", choices=list(EXAMPLES), default=REAL)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="largest number (default: the example's)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--work", type=Path, help="folder of processed data and checkpoints")
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the result rows")
    parser.add_argument(
        "--metrics", type=Path, help="append all metrics, as --out of a script does"
    )
    parser.add_argument("--report", action="store_true", help="write the page's tables, draw")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    if not args.report:
        return run(args)
    rows = read_rows(args.out)
    write_text(PAGE, with_tables(PAGE.read_text(), rows))
    if groups(rows):
        draw(rows)


if __name__ == "__main__":
    main()
