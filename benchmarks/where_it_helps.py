"""Where GTC helps: its gain by activity of the user and popularity of the item."""

from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import stats

from gtc_pyg.experiment import NAMES
from gtc_pyg.utils.provenance import versions
from harness import DOCS, Experiment, Options, column, figure, pick, write_rows
from harness.data import TITLES
from harness.per_user import Ints
from harness.stats import BOOTSTRAP, Floats, Rows
from significance import USERS, Run, Runs, commits_of, read_runs

WHERE = Experiment(
    "where_it_helps",
    "dataset* group* least* most* count baseline* gtc baseline_value difference low high seeds",
)
PLOT = DOCS / "images" / "where_it_helps.png"
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


def table(runs: Runs) -> list[dict[str, object]]:
    """A row for each set, baseline and group."""
    rows: list[dict[str, object]] = []
    columns = {"user": ("user_degree", "recall@20"), "item": ("item_degree", "found")}
    for dataset, models in runs.items():
        first = next(iter(models["gtc"].values()))
        for baseline in (model for model in models if model != "gtc"):
            both = [run for model in ("gtc", baseline) for run in models[model].values()]
            for group, (degree, value) in columns.items():
                pair = [mean_of(models[model], value) for model in ("gtc", baseline)]
                user = first["of_user"] if group == "item" else np.arange(len(first[degree]))
                for least, most, inside in groups_of(first[degree]):
                    values = [x[inside] for x in pair]
                    low, high = interval(values[0] - values[1], user[inside])
                    numbers = [*(x.mean() for x in values), (values[0] - values[1]).mean()]
                    shown = [f"{x:.6f}" for x in (*numbers, low, high)]
                    key = [dataset, group, least, most, int(inside.sum()), baseline]
                    end = [" ".join(map(str, sorted(models["gtc"]))), commits_of(both), versions()]
                    rows.append(dict(zip(WHERE.header, [*key, *shown, *end], strict=True)))
    return rows


def interval(difference: Floats, user: Ints) -> tuple[float, float]:
    """95 % of the mean, by the bootstrap over users; the mean itself where all are alike."""
    _, row = np.unique(user, return_inverse=True)
    total, count = np.bincount(row, difference), np.bincount(row)
    if len(total) < 2 or np.ptp(difference) == 0:
        return (float(difference.mean()),) * 2

    def mean(total: Floats, count: Ints, axis: int) -> Floats:
        return np.asarray(total.sum(axis=axis) / count.sum(axis=axis))

    options = {"paired": True, "vectorized": True, "rng": 0, **BOOTSTRAP}
    found = stats.bootstrap((total, count), mean, **options).confidence_interval
    return float(found.low), float(found.high)


def draw(rows: Rows, path: Path = PLOT) -> None:
    """A panel for each set and kind of group: the gain over each baseline with its interval."""
    datasets = [name for name in TITLES if pick(rows, dataset=name)]
    if not datasets:
        raise ValueError("no rows: nothing to draw")
    size = (4.2 * len(datasets), 6)
    with figure(path, 2, len(datasets), figsize=size, squeeze=False) as (_, axes):
        for panels, dataset in zip(axes.T, datasets, strict=True):
            for axis, group in zip(panels, GROUPS, strict=True):
                mine = pick(rows, dataset=dataset, group=group)
                baselines = list(dict.fromkeys(row["baseline"] for row in mine))
                for k, baseline in enumerate(baselines):
                    bars = pick(mine, baseline=baseline)
                    x = np.arange(len(bars)) + (k - (len(baselines) - 1) / 2) * 0.2
                    y, low, high = (
                        np.array(column(bars, c)) for c in ("difference", "low", "high")
                    )
                    label = f"over {NAMES[baseline]}"
                    axis.errorbar(x, y, [y - low, high - y], fmt="o", capsize=3, label=label)
                    ends = [dict.fromkeys([row["least"], row["most"]]) for row in bars]
                    axis.set_xticks(np.arange(len(bars)), ["-".join(pair) for pair in ends])
                axis.axhline(0, color="black", linewidth=0.8)
                axis.set_xlabel(GROUPS[group])
            panels[0].set_title(TITLES[dataset])
        axes[0, 0].set_ylabel("gain in Recall@20")
        axes[1, 0].set_ylabel("gain in the share found")
        axes[0, 0].legend(fontsize=8)


def run(args: Namespace) -> None:
    if args.plot:
        draw(WHERE.rows(args.out))
    else:
        write_rows(args.out, WHERE.header, table(read_runs(args.users)))


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, WHERE.path, threads=None)
    parser.add("--users", USERS, help="folder of the users' values")
    parser.add("--plot", False, help="draw the committed rows")
    parser.start(argv, run)


if __name__ == "__main__":
    main()
