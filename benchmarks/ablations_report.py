"""Tables and plot of docs/ablations.md from the rows of benchmarks/ablations.py."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import fields
from inspect import signature
from pathlib import Path

from scipy.stats import ttest_rel

from benchmarks.ablations import SWEEP, VARIANTS, WHOLE
from benchmarks.report import DATASETS
from benchmarks.rows import between, markdown, write_text
from benchmarks.search import from_json
from gtc_pyg.experiment import Settings
from gtc_pyg.models import GTC

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "ablations.md"
PLOT = ROOT / "docs" / "images" / "sensitivity.png"
FIGURE = "![Validation Recall@20 against one setting at a time](images/sensitivity.png)"
NONE = "Not measured yet."
COLUMNS = {
    "val_recall@20": "validation Recall@20",
    "test_recall@20": "test Recall@20",
    "test_ndcg@5": "test NDCG@5",
}
Row = Mapping[str, str]


def variants(rows: Sequence[Row], dataset: str) -> dict[str, dict[int, Row]]:
    """The rows of a set by variant and seed, without those of the sweep, in the order of VARIANTS.

    Raises:
        ValueError: Where a variant has a seed twice.
    """
    found: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row["dataset"] == dataset and "=" not in row["variant"]:
            seeds = found.setdefault(row["variant"], {})
            if int(row["seed"]) in seeds:
                raise ValueError(f"{dataset}, {row['variant']}: seed {row['seed']} stands twice")
            seeds[int(row["seed"])] = row
    order = [*VARIANTS, *(name for name in found if name not in VARIANTS)]
    return {name: found[name] for name in order if name in found}


def table(rows: Sequence[Row], dataset: str) -> str:
    """Each variant beside GTC: means over seeds, and the difference with its p.

    p is that of a paired two-sided t-test over the seeds that both have, and shown as it is: with
    this many variants one in twenty falls below .05 by chance.
    """
    found = variants(rows, dataset)
    body = []
    for variant, runs in found.items():
        cells = [variant, str(len(runs))]
        shared = sorted(set(runs) & set(found.get(WHOLE, {})))
        for column in COLUMNS:
            cell = f"{statistics.fmean(float(run[column]) for run in runs.values()):.4f}"
            if variant != WHOLE and len(shared) > 1:
                pair = [[float(of[s][column]) for s in shared] for of in (runs, found[WHOLE])]
                difference = statistics.fmean(pair[0]) - statistics.fmean(pair[1])
                p = float(ttest_rel(*pair).pvalue) if pair[0] != pair[1] else 1.0
                cell += f" ({difference:+.4f}, p = {p:.2g})"
            cells.append(cell)
        body.append(cells)
    return markdown(["", "seeds", *COLUMNS.values()], body) if body else NONE


def tables(rows: Sequence[Row]) -> str:
    """One for each set that has rows."""
    parts = [
        f"**{title}**\n\n{table(rows, dataset)}"
        for dataset, title in DATASETS.items()
        if variants(rows, dataset)
    ]
    return "\n\n".join(parts) or NONE


def value_of(settings: Settings, name: str) -> float:
    """What a setting has for an argument: of the training, of the model, or the model's default."""
    if name in {field.name for field in fields(Settings)}:
        return float(getattr(settings, name))
    return float(settings.model.get(name, signature(GTC).parameters[name].default))


def line(rows: Sequence[Row], dataset: str, name: str) -> list[tuple[float, float]]:
    """Values of an argument and validation Recall@20 of seed 0, by value; GTC's own is among them.

    Nothing where nothing was varied.
    """
    found = [row for row in rows if (row["dataset"], row["seed"]) == (dataset, "0")]
    varied = [row for row in found if row["variant"].startswith(f"{name}=")]
    whole = [row for row in found if row["variant"] == WHOLE] if varied else []
    return sorted(
        (value_of(from_json(row["settings"]), name), float(row["val_recall@20"]))
        for row in [*varied, *whole]
    )


def draw(rows: Sequence[Row], path: Path = PLOT) -> None:
    """A panel for each set and argument: the ring is GTC, the band the spread of its seeds."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    datasets = [name for name in DATASETS if any(line(rows, name, key) for key in SWEEP)]
    for name in datasets:
        if 0 not in variants(rows, name).get(WHOLE, {}):
            raise ValueError(f"{name} has rows of --sweep, but none of {WHOLE!r} with seed 0")
    if not datasets:
        raise ValueError("no rows of --sweep: nothing to draw")
    size = (2.5 * len(SWEEP), 2.4 * len(datasets))
    figure, axes = plt.subplots(
        len(datasets), len(SWEEP), figsize=size, squeeze=False, sharey="row", layout="constrained"
    )
    for panels, dataset in zip(axes, datasets, strict=True):
        seeds = variants(rows, dataset).get(WHOLE, {})
        base = from_json(seeds[0]["settings"])
        values = [float(row["val_recall@20"]) for row in seeds.values()]
        for axis, name in zip(panels, SWEEP, strict=True):
            if len(values) > 1:
                middle, deviation = statistics.fmean(values), statistics.stdev(values)
                axis.axhspan(middle - deviation, middle + deviation, color="0.9")
            points = line(rows, dataset, name)
            if not points:
                continue
            own = value_of(base, name)
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4)
            ring = {"markersize": 10, "markerfacecolor": "none", "color": "tab:red"}
            axis.plot(own, dict(points)[own], marker="o", **ring)
            axis.set_xscale("log")
            axis.set_xticks([x for x, _ in points], [f"{x:g}" for x, _ in points], fontsize=7)
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        panels[0].set_ylabel(f"{DATASETS[dataset].split(' (')[0]}\nRecall@20")
    for axis, name in zip(axes[-1], SWEEP, strict=True):
        axis.set_xlabel(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def with_tables(page: str, rows: Sequence[Row]) -> str:
    """The page with tables and plot between their marks."""
    plot = FIGURE if any("=" in row["variant"] for row in rows) else NONE
    return between(between(page, "ablations", tables(rows)), "sensitivity", plot)


def write(rows: Sequence[Row]) -> None:
    """Fills the page and draws."""
    page = with_tables(PAGE.read_text(), rows)
    if FIGURE in page:
        draw(rows)
    write_text(PAGE, page)
