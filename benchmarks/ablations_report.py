"""Tables and plot of docs/ablations.md from the rows of benchmarks/ablations.py."""

import statistics
from functools import reduce
from pathlib import Path

from ablations_grid import SWEEP, VARIANTS, WHOLE
from gtc_pyg.experiment import Settings
from harness import DOCS, by_seed, column, figure, fill, markdown, mean, paired, pick
from harness.data import TITLES
from harness.settings import PLACES, complete, from_json
from harness.stats import Rows

PAGE, PLOT = DOCS / "ablations.md", DOCS / "images" / "sensitivity.png"
FIGURE = "![Validation Recall@20 against one setting at a time](images/sensitivity.png)"
NONE = "Not measured yet."
COLUMNS = {
    "val_recall@20": "validation Recall@20",
    "test_recall@20": "test Recall@20",
    "test_ndcg@5": "test NDCG@5",
}
Runs = dict[str, dict[int, dict[str, str]]]


def variants(rows: Rows, dataset: str) -> Runs:
    """The rows of a set by variant and seed, without those of the sweep, in the order of VARIANTS.

    Raises:
        ValueError: Where a variant has a seed twice.
    """
    own = [row for row in pick(rows, dataset=dataset) if "=" not in row["variant"]]
    order = dict.fromkeys([*VARIANTS, *(row["variant"] for row in own)])
    found = {name: by_seed(own, variant=name) for name in order}
    return {name: seeds for name, seeds in found.items() if seeds}


def table(rows: Rows, dataset: str) -> str:
    """Each variant beside GTC: means over seeds, and the difference with its p.

    p is that of a paired two-sided t-test over the seeds that both have, and shown as it is: with
    this many variants one in twenty falls below .05 by chance.
    """
    found, body = variants(rows, dataset), []
    for variant, runs in found.items():
        cells = [variant, str(len(runs))]
        for name in COLUMNS:
            test = paired(runs, found.get(WHOLE, {}), name) if variant != WHOLE else None
            cells.append(f"{mean(runs.values(), name):.4f}")
            cells[-1] += f" ({test[0]:+.4f}, p = {test[1]:.2g})" if test else ""
        body.append(cells)
    return markdown(["", "seeds", *COLUMNS.values()], body) if body else NONE


def tables(rows: Rows) -> str:
    """One for each set that has rows."""
    parts = [
        f"**{title}**\n\n{table(rows, dataset)}"
        for dataset, title in TITLES.items()
        if variants(rows, dataset)
    ]
    return "\n\n".join(parts) or NONE


def value_of(settings: Settings, name: str) -> float:
    """What a setting has for an argument of the training, of the model or of a part."""
    if hasattr(settings, name):
        return float(getattr(settings, name))
    whole = complete("gtc", settings).model
    return float(reduce(lambda part, key: part[key], PLACES[name].split("."), whole))


def line(rows: Rows, dataset: str, name: str) -> list[tuple[float, float]]:
    """Values of an argument and validation Recall@20 of seed 0, by value; GTC's own is among them.

    Nothing where nothing was varied.
    """
    found = pick(rows, dataset=dataset, seed=0)
    varied = [row for row in found if row["variant"].startswith(f"{name}=")]
    whole = pick(found, variant=WHOLE) if varied else []
    return sorted(
        (value_of(from_json(row["settings"]), name), float(row["val_recall@20"]))
        for row in [*varied, *whole]
    )


def draw(rows: Rows, path: Path = PLOT) -> None:
    """A panel for each set and argument: the ring is GTC, the band the spread of its seeds."""
    datasets = [name for name in TITLES if any(line(rows, name, key) for key in SWEEP)]
    for name in datasets:
        if 0 not in variants(rows, name).get(WHOLE, {}):
            raise ValueError(f"{name} has rows of --sweep, but none of {WHOLE!r} with seed 0")
    if not datasets:
        raise ValueError("no rows of --sweep: nothing to draw")
    shape, size = (len(datasets), len(SWEEP)), (2.5 * len(SWEEP), 2.4 * len(datasets))
    with figure(path, *shape, figsize=size, squeeze=False, sharey="row") as (_, axes):
        for panels, dataset in zip(axes, datasets, strict=True):
            seeds = variants(rows, dataset)[WHOLE]
            base, values = from_json(seeds[0]["settings"]), column(seeds.values(), "val_recall@20")
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
            panels[0].set_ylabel(f"{TITLES[dataset].split(' (')[0]}\nRecall@20")
        for axis, name in zip(axes[-1], SWEEP, strict=True):
            axis.set_xlabel(name)


def texts(rows: Rows) -> dict[str, str]:
    plot = FIGURE if any("=" in row["variant"] for row in rows) else NONE
    return {"ablations": tables(rows), "sensitivity": plot}


def write(rows: Rows) -> None:
    if texts(rows)["sensitivity"] == FIGURE:
        draw(rows)
    fill(PAGE, texts(rows))
