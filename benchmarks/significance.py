"""The chosen settings with five seeds, and whether GTC's gain over each baseline is more than luck.

    python benchmarks/significance.py --dataset tiktok --root data/tiktok     # train, test once
    python benchmarks/significance.py --test                                  # the table

The first command trains every model of the example script with its SETTINGS and seeds 0 to 4. It
keeps the test metrics of each user, and which test items were found, in a file for each run under
--users and appends the run's rows to --out. A run that has its file is not trained again, so an
interrupted command can be repeated, and several may run at the same time and share the runs.

The second one reads all these files. Each user's value is averaged over the seeds, and GTC is
compared with every baseline user by user: the difference of the means, its 95 % bootstrap interval
over users (percentiles of 9,999 resamples), and p of the two-sided Wilcoxon signed-rank test
(users without a difference left out), also after Holm's correction over the whole table.
``detectable`` is the smallest gain of the mean that a two-sided paired test finds at p < .01 with
a probability of .8, from the standard deviation of the users' differences:
(z(.995) + z(.8)) * deviation / sqrt(users).
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import torch
from scipy import stats

from gtc_pyg import experiment
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment import Settings, _versions, append_rows

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.locks import claimed, lock_of
from benchmarks.options import dataset_parser, with_root
from benchmarks.per_user import METRICS, Floats, per_user
from benchmarks.rows import read_rows, write_rows
from benchmarks.search import DATASETS, example_settings, to_json

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "accuracy.csv"
TABLE = ROOT / "benchmarks" / "results" / "significance.csv"
USERS = ROOT / "outputs" / "users"
HEADER = [
    "dataset",
    "baseline",
    "metric",
    "k",
    "gtc",
    "baseline_value",
    "difference",
    "gain",
    "low",
    "high",
    "p",
    "p_holm",
    "detectable",
    "users",
    "seeds",
    "commit",
    "versions",
]
PRESET, LEVEL, POWER, RESAMPLES = "default", 0.01, 0.8, 9999
Run = dict[str, Any]


def train(name: str, dataset: InteractionDataset, model: str, settings: Settings, seed: int) -> Run:
    """One run: its result rows and the test metrics of each user, which have to agree."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.csv"
        options = f"--models {model} --seed {seed} --preset {PRESET} --quiet".split()
        options += ["--out", str(rows), "--logs", folder]
        args = experiment.parse_args(None, argv=options)
        result = experiment.run(name, dataset, {model: settings}, args)[model][0]
        kept = read_rows(rows)
    found = per_user(result.model, dataset, settings.modalities)
    for key, value in found.metrics.items():
        reported = result.test[key.replace("ndcg", "NDCG").replace("recall", "Recall")]
        if abs(value.mean() - reported) > 1e-6:
            raise RuntimeError(f"{key} of the users is {value.mean()} and {reported} in the report")
    arrays = {**found.metrics, **{name: getattr(found, name) for name in found._fields[1:]}}
    return {"settings": to_json(settings), "rows": json.dumps(kept), **arrays}


def save(path: Path, run: Run) -> None:
    """Keeps a run; the file is written beside and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **run)
    os.replace(beside, path)


def load(path: Path) -> Run:
    """A run that was kept."""
    with np.load(path) as file:
        return {key: str(file[key]) if file[key].ndim == 0 else file[key] for key in file}


def report_once(path: Path, run: Run) -> None:
    """Appends the rows of a run to the result rows, where they are not there yet.

    Raises:
        ValueError: Where the file has other values of the same run.
    """
    rows = json.loads(run["rows"])
    run_key, value_key = experiment.HEADER[:4], experiment.HEADER[:7]
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path.parent):
        old = [row for row in read_rows(path) if all(row[k] == rows[0][k] for k in run_key)]
        if not old:
            append_rows(path, rows)
            return
    there, here = (
        {tuple(r[k] for k in value_key): float(r["value"]) for r in x} for x in (old, rows)
    )
    if there.keys() != here.keys() or any(abs(there[k] - here[k]) > 2e-6 for k in here):
        which = ", ".join(f"{k} {rows[0][k]}" for k in run_key)
        raise ValueError(f"{path} has other values of {which}: remove those rows and repeat")


def run(args: argparse.Namespace) -> None:
    """All runs that are not kept yet, seed by seed."""
    warnings.filterwarnings("ignore", message="Using '.*' without a 'pyg-lib'")
    settings = example_settings(args.dataset)
    with lock_of(Path(args.root)):  # the first one prepares the data
        dataset = DATASETS[args.dataset](args.root)
    for seed in args.seed:
        for model in args.models or list(settings):
            path = args.users / f"{args.dataset}-{model}-{seed}.npz"
            with claimed(path) as mine:
                if not mine:
                    continue
                if not path.exists():
                    save(path, train(args.dataset, dataset, model, settings[model], seed))
                kept = load(path)
                if kept["settings"] != to_json(settings[model]):
                    raise ValueError(f"{path} was made with other settings: remove it and repeat")
                report_once(args.out, kept)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction: the i-th smallest of m times ``m - i + 1``, never decreasing."""
    order, adjusted, largest = np.argsort(p), [0.0] * len(p), 0.0
    for i, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - i) * p[index]))
        adjusted[index] = largest
    return adjusted


def detectable(difference: Floats) -> float:
    """The smallest mean that is found at p < LEVEL with probability POWER (see the top)."""
    normal = statistics.NormalDist()
    quantiles = normal.inv_cdf(1 - LEVEL / 2) + normal.inv_cdf(POWER)
    return float(quantiles * difference.std(ddof=1) / np.sqrt(difference.size))


def compare(gtc: Floats, baseline: Floats) -> dict[str, float]:
    """Of two values for each user: means, difference, interval, p and detectable gain.

    Where no user has a difference, p is 1 and the interval is [0, 0].
    """
    difference = np.round(gtc - baseline, 10)  # equal means of seeds differ by rounding
    low = high = 0.0
    p = 1.0
    if difference.any():
        found = stats.bootstrap(
            (difference,), np.mean, n_resamples=RESAMPLES, batch=99, method="percentile", rng=0
        ).confidence_interval
        low, high = float(found.low), float(found.high)
        p = float(stats.wilcoxon(difference).pvalue)
    return {
        "gtc": float(gtc.mean()),
        "baseline_value": float(baseline.mean()),
        "difference": float(difference.mean()),
        "gain": float(difference.mean() / baseline.mean()) if baseline.any() else float("nan"),
        "low": low,
        "high": high,
        "p": p,
        "detectable": detectable(difference),
    }


def read_runs(folder: Path) -> dict[str, dict[str, dict[int, Run]]]:
    """By data set, model and seed.

    Raises:
        ValueError: Where a set lacks GTC, or its models differ in seeds or users, or the runs of
            one model in settings.
    """
    found: dict[str, dict[str, dict[int, Run]]] = {}
    for path in sorted(folder.glob("*-*-*.npz")):
        dataset, model, seed = path.stem.rsplit("-", 2)
        found.setdefault(dataset, {}).setdefault(model, {})[int(seed)] = load(path)
    if not found:
        raise ValueError(f"{folder} has no runs, make them first")
    for dataset, models in found.items():
        if "gtc" not in models or len(models) < 2:
            raise ValueError(f"{dataset} has {list(models)}, expected gtc and baselines")
        seeds = {model: sorted(runs) for model, runs in models.items()}
        if any(own != seeds["gtc"] for own in seeds.values()):
            raise ValueError(f"{dataset}: models differ in seeds: {seeds}")
        users = [run["users"] for runs in models.values() for run in runs.values()]
        if not all(np.array_equal(other, users[0]) for other in users):
            raise ValueError(f"{dataset}: runs differ in users")
        for model, runs in models.items():
            if len({run["settings"] for run in runs.values()}) > 1:
                raise ValueError(f"{dataset}: runs of {model} differ in settings")
    return found


def table(runs: Mapping[str, Mapping[str, Mapping[int, Run]]]) -> list[dict[str, object]]:
    """A row for each set, baseline and metric, Holm's correction over all of them."""
    rows: list[dict[str, object]] = []
    ps = []
    for dataset, models in runs.items():
        for baseline in (model for model in models if model != "gtc"):
            both = [run for model in ("gtc", baseline) for run in models[model].values()]
            commits = {row["commit"] for run in both for row in json.loads(run["rows"])}
            for metric, k in METRICS:
                pair = [
                    np.mean([run[f"{metric}@{k}"] for run in models[model].values()], axis=0)
                    for model in ("gtc", baseline)
                ]
                values = compare(*pair)
                ps.append(values["p"])
                key = {"dataset": dataset, "baseline": baseline, "metric": metric, "k": k}
                rows.append(
                    key
                    | {name: f"{value:.6f}" for name, value in values.items() if name != "p"}
                    | {"users": pair[0].size, "seeds": " ".join(map(str, sorted(models["gtc"])))}
                    | {"commit": " ".join(sorted(commits))}
                    | {"versions": f"{_versions()}; scipy {scipy.__version__}"}
                )
    for row, p, corrected in zip(rows, ps, holm(ps), strict=True):
        row |= {"p": f"{p:.3g}", "p_holm": f"{corrected:.3g}"}
    return rows


def format_rows(rows: Sequence[Mapping[str, object]]) -> str:
    """A line for each comparison."""
    lines = []
    for row in rows:
        name = f"{row['dataset']}, GTC - {row['baseline']}, {row['metric']}@{row['k']}:"
        lines.append(
            f"{name:<40} {row['gtc']} - {row['baseline_value']} = {row['difference']} "
            f"({float(str(row['gain'])):+.2%}) [{row['low']}, {row['high']}], p {row['p']}, "
            f"Holm {row['p_holm']}, detectable {row['detectable']}, {row['users']} users, "
            f"seeds {row['seeds']}"
        )
    return "\n".join(lines)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = dataset_parser(__doc__, list(DATASETS), "tiktok", ROWS)
    parser.add_argument("--models", nargs="+", help="default: all of the example script")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--users", type=Path, default=USERS, help="folder of the users' values")
    parser.add_argument("--test", action="store_true", help="compare what was trained")
    parser.add_argument("--table", type=Path, default=TABLE, help="CSV file of the comparisons")
    return with_root(parser.parse_args(argv))


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.test:
        rows = table(read_runs(args.users))
        write_rows(args.table, HEADER, rows)  # anew: a p-value depends on all rows
        print(format_rows(rows))
    else:
        run(args)
        print(
            f"next: python benchmarks/significance.py --test --users {args.users}", file=sys.stderr
        )
