"""The plot of docs/time_to_quality.md; ``time_to_quality.py --report`` draws it."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np

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
    with figure(path, 1, len(found), figsize=size, squeeze=False) as (made, axes):
        panels = list(zip(axes[0], found.items(), strict=True))
        means = [_draw_group(axis, key, group) for axis, (key, group) in panels]
        made.canvas.draw()  # the layout is settled before labels look for room
        for axis, lines in zip(axes[0], means, strict=True):
            _label(axis, lines)


def _draw_group(axis: Any, key: tuple[str, ...], group: Group) -> dict[str, np.ndarray]:
    """One panel; the mean line of each model [P, 2], up to the last epoch that all seeds have."""
    bests = [run.best for run in group["lightgcn"].values()]
    level, means = statistics.fmean(bests), {}
    axis.axhline(level, color=COLORS["lightgcn"], linestyle="--", linewidth=1)
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
        both = _drawable(*means_of)
        axis.plot(*both, color=color, linewidth=2)
        means[model] = np.array(both).T
    top = max(run.best for runs in group.values() for run in runs.values())
    axis.set(xscale="log", ylim=(0.5 * level, top + 0.08 * level), title=title(key))
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


def _drawable(clock: list[float], recall: list[float]) -> tuple[list[float], list[float]]:
    """Without a start that takes no time, for which a logarithmic axis has no place."""
    first = int(clock[0] == 0)
    return clock[first:], recall[first:]


def _label(axis: Any, lines: dict[str, np.ndarray]) -> None:
    """Names beside their lines, nearer to these than to others, where they cover nothing."""
    level, dense, frame = axis.lines[0], {}, axis.get_window_extent()
    placed = [(box.min, box.max) for box in (text.get_window_extent() for text in axis.texts)]
    for model, line in lines.items():
        pixels, step = axis.transData.transform(line), np.arange(len(line))
        fine = np.linspace(0, len(line) - 1, 40 * len(line))
        dense[model] = np.stack([np.interp(fine, step, x) for x in pixels.T], axis=1)
    ruler = np.linspace(*level.get_transform().transform(level.get_xydata()), 400)
    drawn = np.concatenate([ruler, *dense.values()])
    for model, own in dense.items():
        size, found = np.array([10.8 * len(NAMES[model]), 16.0]), []
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
        axis.text(*place, NAMES[model], color=COLORS[model], fontweight="bold")
