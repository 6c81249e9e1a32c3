"""Where GTC helps: its gain over each baseline by activity of the user and popularity of the item.

    python benchmarks/where_it_helps.py          # after significance.py, of the files it kept
    python benchmarks/where_it_helps.py --plot   # docs/images/where_it_helps.png from the rows

Users are grouped by their number of training interactions, test interactions by that of their item,
into five groups about equally large; items nobody had touched are a group of their own. Of a group
of users the mean Recall@20 is shown, of a group of interactions the share that was found among the
first 20 (each user's Recall@20 weighed by their number of test interactions). Values are averaged
over the seeds first; the interval is that of the difference, by 9,999 resamples of users.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from gtc_pyg.experiment import NAMES, _versions

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.per_user import Floats, Ints
from benchmarks.report import DATASETS
from benchmarks.rows import read_rows, write_rows
from benchmarks.significance import RESAMPLES, USERS, Run, read_runs

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "where_it_helps.csv"
PLOT = ROOT / "docs" / "images" / "where_it_helps.png"
HEADER = [
    "dataset",
    "group",
    "least",
    "most",
    "count",
    "baseline",
    "gtc",
    "baseline_value",
    "difference",
    "low",
    "high",
    "seeds",
    "commit",
    "versions",
]
GROUPS = {"user": "training interactions of the user", "item": "training interactions of the item"}
NUM_GROUPS = 5


def groups_of(degree: Ints) -> Iterator[tuple[int, int, np.ndarray]]:
    """Least and most degree of each group, and who is in it; zero is a group of its own."""
    if (degree == 0).any():
        yield 0, 0, degree == 0
    known = degree[degree > 0]
    if len(known) == 0:
        return
    edges = np.unique(np.quantile(known, np.linspace(0, 1, NUM_GROUPS + 1)).round().astype(int))
    for k, first in enumerate(edges[:-1] if len(edges) > 1 else edges):
        last = len(edges) - 2 <= k
        end = edges[-1] + 1 if last else edges[k + 1]
        inside = (degree >= first) & (degree < end)
        if inside.any():
            yield int(degree[inside].min()), int(degree[inside].max()), inside


def mean_of(runs: Mapping[int, Run], name: str) -> Floats:
    """Over the seeds."""
    return np.mean([np.asarray(run[name], dtype=np.float64) for run in runs.values()], axis=0)


def table(runs: Mapping[str, Mapping[str, Mapping[int, Run]]]) -> list[dict[str, object]]:
    """A row for each set, baseline and group."""
    rows: list[dict[str, object]] = []
    columns = {"user": ("user_degree", "recall@20"), "item": ("item_degree", "found")}
    for dataset, models in runs.items():
        first = next(iter(models["gtc"].values()))
        for baseline in (model for model in models if model != "gtc"):
            both = [run for model in ("gtc", baseline) for run in models[model].values()]
            commits = sorted({row["commit"] for run in both for row in json.loads(run["rows"])})
            for group, (degree, value) in columns.items():
                pair = [mean_of(models[model], value) for model in ("gtc", baseline)]
                user = first["of_user"] if group == "item" else np.arange(len(first[degree]))
                for least, most, inside in groups_of(first[degree]):
                    values = [x[inside] for x in pair]
                    low, high = interval(values[0] - values[1], user[inside])
                    numbers = [*(x.mean() for x in values), (values[0] - values[1]).mean()]
                    shown = [f"{x:.6f}" for x in (*numbers, low, high)]
                    key = [dataset, group, least, most, int(inside.sum()), baseline]
                    seeds = " ".join(map(str, sorted(models["gtc"])))
                    end = [seeds, " ".join(commits), _versions()]
                    rows.append(dict(zip(HEADER, [*key, *shown, *end], strict=True)))
    return rows


def interval(difference: Floats, user: Ints) -> tuple[float, float]:
    """95 % of the mean, by the bootstrap over users; the mean itself where all are alike."""
    _, row = np.unique(user, return_inverse=True)
    total, count = np.bincount(row, difference), np.bincount(row)
    if len(total) < 2 or np.ptp(difference) == 0:
        return (float(difference.mean()),) * 2

    def mean(total: Floats, count: Ints, axis: int) -> Floats:
        return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))

    options = {"n_resamples": RESAMPLES, "batch": 99, "method": "percentile", "rng": 0}
    found = stats.bootstrap((total, count), mean, paired=True, vectorized=True, **options)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def draw(rows: Sequence[Mapping[str, str]], path: Path = PLOT) -> None:
    """A panel for each set and kind of group: the gain over each baseline with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    datasets = [name for name in DATASETS if any(row["dataset"] == name for row in rows)]
    if not datasets:
        raise ValueError("no rows: nothing to draw")
    figure, axes = plt.subplots(
        2, len(datasets), figsize=(4.2 * len(datasets), 6), squeeze=False, layout="constrained"
    )
    for column, dataset in enumerate(datasets):
        for axis, group in zip(axes[:, column], GROUPS, strict=True):
            mine = [r for r in rows if (r["dataset"], r["group"]) == (dataset, group)]
            baselines = list(dict.fromkeys(row["baseline"] for row in mine))
            for k, baseline in enumerate(baselines):
                bars = [row for row in mine if row["baseline"] == baseline]
                x = np.arange(len(bars)) + (k - (len(baselines) - 1) / 2) * 0.2
                y, low, high = (
                    np.array([float(row[name]) for row in bars])
                    for name in ("difference", "low", "high")
                )
                axis.errorbar(
                    x, y, [y - low, high - y], fmt="o", capsize=3, label=f"over {NAMES[baseline]}"
                )
                names = [
                    row["least"] if row["least"] == row["most"] else f"{row['least']}-{row['most']}"
                    for row in bars
                ]
                axis.set_xticks(np.arange(len(bars)), names)
            axis.axhline(0, color="black", linewidth=0.8)
            axis.set_xlabel(GROUPS[group])
        axes[0, column].set_title(DATASETS[dataset])
    axes[0, 0].set_ylabel("gain in Recall@20")
    axes[1, 0].set_ylabel("gain in the share found")
    axes[0, 0].legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=Path, default=USERS, help="folder of the users' values")
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the rows")
    parser.add_argument("--plot", action="store_true", help="draw the committed rows")
    return parser.parse_args(argv)


if __name__ == "__main__":
    args = parse_args()
    if args.plot:
        draw(read_rows(args.out))
    else:
        write_rows(args.out, HEADER, table(read_runs(args.users)))
