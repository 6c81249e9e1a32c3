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
validation said. Runs whose row is there are skipped, so an interrupted command can be repeated;
after a change of the code, begin with another file.
"""

import argparse
import contextlib
import gc
import io
import os
import platform
import runpy
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from gtc_pyg import experiment
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment import Settings, _commit, _versions
from gtc_pyg.lightning import FitResult
from gtc_pyg.models import GraphRecommender

try:
    from benchmarks.rows import append_rows, between, read_rows, write_text
except ModuleNotFoundError:  # run as a script
    from rows import append_rows, between, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "time_to_quality.csv"
PAGE = ROOT / "docs" / "time_to_quality.md"
PLOT = ROOT / "docs" / "images" / "time_to_quality.png"
EXAMPLES = {
    "tiktok": "tiktok.py",
    "lfm2k": "lfm2k.py",
    "baby": "baby.py",
    "planted": "quickstart.py",
}
REAL = ["tiktok", "lfm2k", "baby"]
TITLES = {"tiktok": "TikTok", "lfm2k": "LFM2k", "baby": "Baby", "planted": "planted data"}
STARTED = "lightgcn_started"  # from the interactions, as GTC; else the example's LightGCN
MODELS = ["lightgcn", STARTED, "freedom", "gtc"]
NAMES = experiment.NAMES | {STARTED: "LightGCN, same start"}
CONDITIONS = ["dataset", "epochs", "threads", "machine", "malloc"]
KEY = [*CONDITIONS, "model", "seed"]
METRICS = ["val_recall@20", "val_ndcg@20", "test_recall@20", "test_ndcg@20"]
LISTS = ["train_s", "evaluation_s", "val_recall@20_by_epoch"]
HEADER = [*KEY, "best_epoch", *METRICS, "process", "commit", "versions", "start_s", *LISTS]
TARGET = 1.5
SHARES = (1.0, 0.99, 0.95)
LABELS = NAMES | {STARTED: "same start"}  # in the plot
COLORS = {
    "lightgcn": "#555555",
    STARTED: "tab:green",
    "freedom": "tab:orange",
    "gtc": "tab:blue",
}
PROCESS = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


# Runs


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

    With it the seconds that the model took to start from the interactions. Its metrics are
    appended to ``rows``, as the script's ``--out`` does.
    """
    more = ["--epochs", str(epochs)] if epochs else []
    if model == STARTED:  # no model of the example, so none of its metrics
        model, rows = "lightgcn", None
        settings = {model: replace(settings[model], spectral_start=True)}
    more += ["--out", str(rows)] if rows else []
    options = ["--models", model, "--seed", str(seed), *more, "--logs", str(logs), "--quiet"]
    args = experiment.parse_args(None, argv=options)
    starts, start_from = [0.0], GraphRecommender.start_from

    def timed(model: GraphRecommender, edge_index: torch.Tensor) -> None:
        before = time.perf_counter()
        start_from(model, edge_index)
        starts.append(time.perf_counter() - before)

    gc.collect()
    with (
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(GraphRecommender, "start_from", timed),
    ):
        return experiment.run(name, dataset, settings, args)[model][0], sum(starts)


def row_of(key: Mapping[str, object], result: FitResult, start: float) -> dict[str, object]:
    """The row of a run."""
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
        "start_s": f"{start:.4f}",
        "train_s": " ".join(f"{s:.4f}" for s in result.seconds),
        "evaluation_s": " ".join(f"{s:.4f}" for s in result.evaluation_seconds),
        "val_recall@20_by_epoch": " ".join(f"{row['val/Recall@20']:.7f}" for row in result.history),
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
                    append_rows(args.out, HEADER, [row_of(key, result, start)])
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


# What the rows say


@dataclass(frozen=True)
class Run:
    """One run: of each epoch the seconds, those of its evaluation, and validation Recall@20.

    ``start`` are the seconds before the first one, in which a model starts from the interactions.
    """

    seconds: list[float]
    evaluation: list[float]
    recall: list[float]
    row: Mapping[str, str]
    start: float

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "Run":
        lists = [[float(x) for x in row[key].split()] for key in LISTS]
        if len({len(x) for x in lists}) != 1 or not lists[0]:
            raise ValueError(f"the lists of {[row[key] for key in KEY]} differ in length")
        return cls(*lists, row, float(row["start_s"]))

    @property
    def best(self) -> float:
        """The highest validation Recall@20."""
        return max(self.recall)

    def clock(self, account: str) -> list[float]:
        """Seconds at the end of each epoch, the start included.

        Args:
            account: ``'measured'``, training seconds so far; ``'steady'``, the median epoch times
                the number of epochs; ``'evaluated'``, as measured with evaluations.
        """
        if account == "measured":
            return list(accumulate(self.seconds, initial=self.start))[1:]
        if account == "steady":
            median = statistics.median(self.seconds)
            return [self.start + median * epoch for epoch in range(1, len(self.seconds) + 1)]
        if account == "evaluated":
            both = zip(self.seconds, self.evaluation, strict=True)
            each = (train + evaluation for train, evaluation in both)
            return list(accumulate(each, initial=self.start))[1:]
        raise ValueError(f"'account' must be measured, steady or evaluated (got {account!r})")


def first_epoch(recall: list[float], level: float) -> int | None:
    """The first epoch, counted from 1, that is not below the level; ``None`` where all are."""
    return next((epoch for epoch, value in enumerate(recall, 1) if value >= level), None)


def seconds_to(run: Run, level: float, account: str = "measured") -> float | None:
    """Seconds at the end of the first epoch that reaches the level; ``None`` where none does."""
    epoch = first_epoch(run.recall, level)
    return None if epoch is None else run.clock(account)[epoch - 1]


Group = dict[str, dict[int, Run]]


def groups(rows: list[dict[str, str]]) -> dict[tuple[str, ...], Group]:
    """Conditions to model to seed to run: the seeds that all models of the conditions have.

    Conditions without LightGCN, and without a seed that all share, are left out.

    Raises:
        ValueError: Where a run stands twice.
    """
    found: dict[tuple[str, ...], Group] = {}
    for row in rows:
        seeds = found.setdefault(tuple(row[key] for key in CONDITIONS), {})
        seeds = seeds.setdefault(row["model"], {})
        if int(row["seed"]) in seeds:
            raise ValueError(f"a run stands twice: {[row[key] for key in KEY]}")
        seeds[int(row["seed"])] = Run.from_row(row)
    out: dict[tuple[str, ...], Group] = {}
    for key in sorted(found, key=lambda key: (list(EXAMPLES).index(key[0]), key)):
        shared = sorted(set.intersection(*(set(seeds) for seeds in found[key].values())))
        if shared and "lightgcn" in found[key]:
            out[key] = {
                name: {seed: found[key][name][seed] for seed in shared}
                for name in MODELS
                if name in found[key]
            }
    return out


def times(group: Group, model: str, share: float, account: str) -> list[float | None]:
    """Seconds of each seed until the share of LightGCN's best, that of the same seed."""
    levels = {seed: share * run.best for seed, run in group["lightgcn"].items()}
    return [seconds_to(run, levels[seed], account) for seed, run in group[model].items()]


def ratios(group: Group, model: str, share: float, account: str) -> list[float | None]:
    """Seconds of each seed over LightGCN's of the same seed."""
    pairs = zip(
        times(group, model, share, account), times(group, "lightgcn", share, account), strict=True
    )
    return [None if mine is None else mine / base for mine, base in pairs]


def met(group: Group) -> bool:
    """Whether GTC needs at most 1.5 times LightGCN's seconds.

    The mean over seeds must say so, of the measured and of the steady seconds, and every seed must
    reach the level.
    """
    for account in ("measured", "steady"):
        found = ratios(group, "gtc", 1.0, account)
        reached = [ratio for ratio in found if ratio is not None]
        if len(reached) < len(found) or statistics.fmean(reached) > TARGET:
            return False
    return True


# Tables


def target_table(rows: list[dict[str, str]]) -> str:
    """Seconds of GTC over those of LightGCN, for each seed and on the whole."""
    head = ["", "by seed", "mean", "mean, steady", "mean, with evaluation", "at most 1.5"]
    lines = []
    for key, group in groups(rows).items():
        if "gtc" in group:
            accounts = {
                account: ratios(group, "gtc", 1.0, account)
                for account in ("measured", "steady", "evaluated")
            }
            by_seed = ", ".join(
                "not reached" if ratio is None else f"{ratio:.2f}" for ratio in accounts["measured"]
            )
            cells = [_title(key), by_seed, *map(_mean, accounts.values())]
            lines.append(_row([*cells, "**met**" if met(group) else "**not met**"]))
    return _table(head, lines)


def time_table(rows: list[dict[str, str]]) -> str:
    """Epochs and seconds of each model until LightGCN's best."""
    head = ["", "epochs", "s / epoch", "seconds", "of LightGCN's", "seconds, steady"]
    tables = []
    for key, group in groups(rows).items():
        lines = []
        for model, runs in group.items():
            best = {seed: run.best for seed, run in group["lightgcn"].items()}
            epochs = [first_epoch(run.recall, best[seed]) for seed, run in runs.items()]
            medians = [statistics.median(run.seconds) for run in runs.values()]
            cells = [_mean(epochs, 0), _mean(medians, 3)]
            cells.append(_mean(times(group, model, 1.0, "measured"), 1))
            cells.append(_mean(ratios(group, model, 1.0, "measured")))
            cells.append(_mean(times(group, model, 1.0, "steady"), 1))
            lines.append(_row([NAMES[model], *cells]))
        tables += [f"**{_title(key)}**: {_conditions(key, group)}", "", _table(head, lines), ""]
    return "\n".join(tables).rstrip() or _table(head, [])


def share_table(rows: list[dict[str, str]]) -> str:
    """Seconds until shares of LightGCN's best, as multiples of LightGCN's own."""
    others = [NAMES[model] for model in MODELS[1:]]
    head = ["", "of LightGCN's best", "LightGCN, seconds", *(f"{name}, times" for name in others)]
    lines = []
    for key, group in groups(rows).items():
        for share in SHARES:
            cells = [_title(key), f"{share:.0%}"]
            cells.append(_mean(times(group, "lightgcn", share, "measured"), 1))
            for model in MODELS[1:]:
                known = model in group
                cells.append(_mean(ratios(group, model, share, "measured")) if known else "")
            lines.append(_row(cells))
    return _table(head, lines)


def accuracy_table(rows: list[dict[str, str]]) -> str:
    """Validation and test of the best epochs of these runs."""
    head = ["", "", "best epoch", "validation Recall@20", "NDCG@20", "test Recall@20", "NDCG@20"]
    lines = []
    for key, group in groups(rows).items():
        for model, runs in group.items():
            cells = [_title(key), NAMES[model]]
            cells.append(_mean([float(run.row["best_epoch"]) for run in runs.values()], 0))
            for metric in METRICS:
                cells.append(_mean([float(run.row[metric]) for run in runs.values()], 4))
            lines.append(_row(cells))
    return _table(head, lines)


def curves(rows: list[dict[str, str]]) -> str:
    """The plot, where there is something to draw."""
    text = "Validation Recall@20 of each model against seconds of training, for each dataset"
    return f"![{text}](images/{PLOT.name})" if groups(rows) else "Nothing to draw yet."


PARTS = {
    "target": target_table,
    "curves": curves,
    "seconds": time_table,
    "shares": share_table,
    "accuracy": accuracy_table,
}


def with_tables(page: str, rows: list[dict[str, str]]) -> str:
    """The page with all that comes from the rows between its marks."""
    for name, make in PARTS.items():
        page = between(page, name, make(rows))
    return page


def _mean(values: list[float | None], digits: int = 2) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"not reached ({len(values) - len(known)} of {len(values)})"
    mean = f"{statistics.fmean(known):.{digits}f}"
    return mean if len(known) < 2 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


def _title(key: tuple[str, ...]) -> str:
    """Dataset, and what is unusual about the runs."""
    dataset, epochs, threads, _, malloc = key
    more = [f"{threads} thread{'' if threads == '1' else 's'}"]
    more += [f"at most {epochs} epochs"] if epochs != "example's" else []
    more += ["glibc's malloc set"] if malloc != "default" else []
    return f"{TITLES[dataset]}, {', '.join(more)}"


def _conditions(key: tuple[str, ...], group: Group) -> str:
    _, _, _, machine, malloc = key
    runs = [list(seeds.values()) for seeds in group.values()]
    processes = [{run.row["process"] for run in seed} for seed in zip(*runs, strict=True)]
    apart = sum(len(found) > 1 for found in processes)
    commits = sorted({run.row["commit"] for seeds in runs for run in seeds})
    return "; ".join(
        [
            machine,
            *([] if malloc == "default" else [f"`{malloc}`"]),
            f"seeds {', '.join(map(str, group['lightgcn']))}",
            "all models of a seed in one process"
            if not apart
            else f"models of {apart} of {len(processes)} seeds in several processes",
            f"commit {', '.join(commits)}",
        ]
    )


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _table(head: list[str], lines: list[str]) -> str:
    return "\n".join([_row(head), _row(["---"] * len(head)), *lines])


def draw(rows: list[dict[str, str]], path: Path = PLOT) -> None:
    """Validation Recall@20 against seconds of training: thin lines for seeds, bold for the mean."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    found = groups(rows)
    if not found:
        raise ValueError("no seed has a run of every model: nothing to draw")
    figure, axes = plt.subplots(
        1, len(found), figsize=(4.4 * len(found), 3.6), squeeze=False, layout="constrained"
    )
    means = [
        _draw_group(axis, key, group)
        for axis, (key, group) in zip(axes[0], found.items(), strict=True)
    ]
    figure.canvas.draw()  # the layout is settled before labels look for room
    for axis, lines in zip(axes[0], means, strict=True):
        _label(axis, lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_group(axis: Any, key: tuple[str, ...], group: Group) -> dict[str, np.ndarray]:
    """One panel; the mean line of each model [P, 2], up to the last epoch that all seeds have."""
    bests = [run.best for run in group["lightgcn"].values()]
    level, means = statistics.fmean(bests), {}
    axis.axhline(level, color=COLORS["lightgcn"], linestyle="--", linewidth=1)
    for model, runs in group.items():
        color, clocks = COLORS[model], [run.clock("measured") for run in runs.values()]
        for (seed, run), clock in zip(runs.items(), clocks, strict=True):
            axis.plot(clock, run.recall, color=color, linewidth=0.7, alpha=0.35)
            epoch = first_epoch(run.recall, group["lightgcn"][seed].best)
            if epoch is not None:
                point = clock[epoch - 1], run.recall[epoch - 1]
                axis.plot(*point, "o", color=color, markersize=5, markeredgecolor="white")
        curves = [run.recall for run in runs.values()]
        both = [[statistics.fmean(at) for at in zip(*x, strict=False)] for x in (clocks, curves)]
        axis.plot(*both, color=color, linewidth=2)
        means[model] = np.array(both).T
    top = max(run.best for runs in group.values() for run in runs.values())
    axis.set(xscale="log", ylim=(0.5 * level, top + 0.08 * level), title=_title(key))
    axis.set(xlabel="seconds of training (log)", ylabel="validation Recall@20")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.25)
    axis.annotate(
        "LightGCN's best",
        (0.02, level),
        xycoords=axis.get_yaxis_transform(),
        xytext=(0, 3),
        textcoords="offset points",
        color=COLORS["lightgcn"],
        fontsize=9,
    )
    return means


def _label(axis: Any, lines: dict[str, np.ndarray]) -> None:
    """Names beside their lines, nearer to these than to others, where they cover nothing."""
    level, dense, frame, placed = axis.lines[0], {}, axis.get_window_extent(), []
    for model, line in lines.items():
        pixels, step = axis.transData.transform(line), np.arange(len(line))
        fine = np.linspace(0, len(line) - 1, 40 * len(line))
        dense[model] = np.stack([np.interp(fine, step, x) for x in pixels.T], axis=1)
    ruler = np.linspace(*level.get_transform().transform(level.get_xydata()), 400)
    drawn = np.concatenate([ruler, *dense.values()])
    for model, own in dense.items():
        size, found = np.array([10.8 * len(LABELS[model]), 16.0]), []
        for corner in own[:: max(1, len(own) // 60)]:
            for side in ([6.0, -18.0], [-6.0 - size[0], 2.0], [6.0, 2.0]):
                low, high = corner + side, corner + side + size
                covers = ((drawn > low) & (drawn < high)).all(axis=1).any()
                covers |= any((low < b).all() and (a < high).all() for a, b in placed)
                covers |= not (frame.contains(*low) and frame.contains(*high))
                gap = {m: np.abs(x - (low + high) / 2).max(1).min() for m, x in dense.items()}
                own_gap = gap.pop(model)
                margin = min(gap.values(), default=0.0) - own_gap
                found.append((bool(covers), -margin, tuple(low)))
        low = np.array(min(found)[2])
        placed.append((low, low + size))
        place = axis.transData.inverted().transform(low)
        axis.text(*place, LABELS[model], color=COLORS[model], fontweight="bold")


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
