"""The plot of docs/time_to_quality.md; ``time_to_quality.py --report`` draws it."""

import statistics
from pathlib import Path
from typing import Any

from gtc_pyg.experiment import NAMES
from harness import DOCS, figure
from harness.stats import Rows
from time_to_quality_report import PLOT, Group, first_epoch, groups, title

IMAGES = DOCS / "images"
COLORS = {"lightgcn": "#555555", "freedom": "tab:orange", "gtc": "tab:blue"}


def draw(rows: Rows, path: Path = IMAGES / PLOT) -> None:
    """Validation Recall@20 against seconds of training: thin lines for seeds, bold for the mean."""
    found = groups(rows)
    if not found:
        raise ValueError("no seed has a run of every model: nothing to draw")
    size = (4.4 * len(found), 3.6)
    with figure(path, 1, len(found), figsize=size, squeeze=False) as (_, axes):
        for axis, (key, group) in zip(axes[0], found.items(), strict=True):
            _draw_group(axis, key, group)


def _draw_group(axis: Any, key: tuple[str, ...], group: Group) -> None:
    """One panel; the mean line of each model goes up to the last epoch that all seeds have."""
    level = statistics.fmean(run.best for run in group["lightgcn"].values())
    best = {"linestyle": "--", "linewidth": 1, "label": "LightGCN's best"}
    axis.axhline(level, color=COLORS["lightgcn"], **best)
    for model, runs in group.items():
        color, clocks = COLORS[model], [run.clock("measured") for run in runs.values()]
        for (seed, run), clock in zip(runs.items(), clocks, strict=True):
            axis.plot(*_drawable(clock, run.recall), color=color, linewidth=0.7, alpha=0.35)
            epoch = first_epoch(run.recall, group["lightgcn"][seed].best)
            if epoch is not None:
                point = clock[epoch], run.recall[epoch]
                axis.plot(*point, "o", color=color, markersize=5, markeredgecolor="white")
        curves = [run.recall for run in runs.values()]
        means_of = [
            [statistics.fmean(at) for at in zip(*x, strict=False)] for x in (clocks, curves)
        ]
        axis.plot(*_drawable(*means_of), color=color, linewidth=2, label=NAMES[model])
    top = max(run.best for runs in group.values() for run in runs.values())
    axis.set(xscale="log", ylim=(0.5 * level, top + 0.08 * level), title=title(key))
    axis.set(xlabel="seconds of training (log)", ylabel="validation Recall@20")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.grid(alpha=0.25)
    axis.legend(fontsize=8, loc="lower right")


def _drawable(clock: list[float], recall: list[float]) -> tuple[list[float], list[float]]:
    """Without a start that takes no time, for which a logarithmic axis has no place."""
    first = int(clock[0] == 0)
    return clock[first:], recall[first:]
