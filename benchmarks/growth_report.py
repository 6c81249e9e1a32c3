"""Tables and plot of docs/growth.md from the rows of benchmarks/growth.py."""

import json
import math
from pathlib import Path

from harness import DOCS, column, figure, markdown, pick
from harness.stats import Rows

NAMES = {"lightgcn": "LightGCN", "freedom": "FREEDOM", "gtc": "GTC"}
COLORS = {"lightgcn": "tab:gray", "freedom": "tab:orange", "gtc": "tab:blue"}
MAIN = "32"  # the batch of the curves
NONE = "Not measured yet."
PAGE, PLOT = DOCS / "growth.md", DOCS / "images" / "growth.png"
FIGURE = (
    "![Time per interaction and peak memory against the number of interactions](images/growth.png)"
)
Row = dict[str, str]


def curve(rows: Rows, what: str, model: str, batch: str) -> list[Row]:
    """The rows of one line, by size; no size may stand twice."""
    found = pick(rows, what=what, model=model, batch=batch)
    if len({row["interactions"] for row in found}) < len(found):
        raise ValueError(f"a size stands twice for {what}, {model}, {batch}")
    return sorted(found, key=lambda row: int(row["interactions"]))


def growth_per_tenfold(row: Row, to: str) -> list[float]:
    """By what share the time per interaction grows when interactions become ten times as many.

    Median and quartiles over rounds, beside the ``"previous"`` or the ``"smallest"`` size of the
    same rounds; nothing for the smallest.
    """
    sizes, size = json.loads(row["sizes"]), int(row["interactions"])
    other = sizes[max(sizes.index(size) - 1, 0)] if to == "previous" else sizes[0]
    if other == size:
        return []
    exponent = 1 / math.log10(size / other)
    return [float(row[f"to_{to}_{key}"]) ** exponent - 1 for key in ("median", "q1", "q3")]


def rest_mib(row: Row) -> float:
    """What of the peak of training no table, content or adjacency takes."""
    stored = sum(float(row[key]) for key in ("tables_mib", "content_mib", "adjacency_mib"))
    return float(row["peak_mib"]) - stored


def time_table(rows: Rows, what: str = "mini-batches") -> str:
    """Time by batch, model and size, and how it grows."""
    head = ["", "interactions", "nodes a step", "step, ms", "of it sampling", "µs / interaction"]
    head += ["per tenfold, from the size before", "from the smallest", "epoch (extrapolated)"]
    parts, own = [], pick(rows, what=what)
    for batch in sorted({row["batch"] for row in own}, key=int):
        body = []
        for model, name in NAMES.items():
            for row in curve(own, what, model, batch):
                x = {key: float(row[f"{key}_s"]) for key in ("quartile_1", "quartile_3", "step")}
                low, high, step = (f"{1e3 * value:.1f}" for value in x.values())
                nodes = int(row["sampled_users"]) + int(row["sampled_items"])
                cells = [name, f"{int(row['interactions']):,}", f"{nodes:,}"]
                cells += [
                    f"{step} ({low} to {high})",
                    f"{float(row['sampling_s']) / x['step']:.0%}",
                ]
                cells += [f"{float(row['us_per_interaction']):.0f}"]
                for to in ("previous", "smallest"):
                    shown = [f"{growth:+.0%}" for growth in growth_per_tenfold(row, to)]
                    cells += [f"{shown[0]} ({shown[1]} to {shown[2]})" if shown else ""]
                body.append([*cells, _duration(float(row["epoch_extrapolated_s"]))])
        first = pick(own, batch=batch)[0]
        hops = f", fan-out {first['fan_out']}, similar items {first['item_fan_out']}"
        threads = "1 thread" if first["threads"] == "1" else f"{first['threads']} threads"
        title = f"**Batch of {batch}**" + (hops if first["fan_out"] else "")
        title += f", {first['steps']} steps in {first['rounds']} turns, {threads}"
        parts.append(f"{title}\n\n{markdown(head, body)}")
    return "\n\n".join(parts) or NONE


def memory_table(rows: Rows) -> str:
    """Peaks of mini-batch training beside what must grow."""
    head = ["", "interactions", "set-up peak, MiB", "training peak, MiB", "tables and states"]
    head += ["content", "adjacency", "rest"]
    keys = ("interactions", "setup_peak_mib", "peak_mib", "tables_mib", "content_mib")
    keys += ("adjacency_mib",)
    body = [
        [name, *(f"{float(row[key]):,.0f}" for key in keys), f"{rest_mib(row):,.0f}"]
        for model, name in NAMES.items()
        for row in curve(rows, "mini-batches", model, MAIN)
    ]
    return markdown(head, body) if body else NONE


def item_table(rows: Rows) -> str:
    """Exact item graphs: time and memory."""
    head = ["items", "threads", "seconds", "µs / item", "peak, MiB", "content, MiB"]
    body = []
    own = pick(rows, what="item graph")
    for row in sorted(own, key=lambda row: (int(row["items"]), int(row["threads"]))):
        cells = [f"{int(row['items']):,}", row["threads"], row["step_s"], row["us_per_interaction"]]
        cells += [f"{float(row[key]):,.0f}" for key in ("peak_mib", "content_mib")]
        body.append([*cells, f"{4 * int(row['items']) ** 2 / 2**20:,.0f}"])
    return markdown([*head, "quadratic, MiB"], body) if body else NONE


def texts(rows: Rows) -> dict[str, str]:
    return {
        "plot": FIGURE if pick(rows, what="mini-batches", batch=MAIN) else NONE,
        "time": time_table(rows),
        "memory": memory_table(rows),
        "whole": time_table(rows, "whole graph"),
        "items": item_table(rows),
    }


def draw(rows: Rows, path: Path = PLOT) -> None:
    """Time per interaction and peak memory against interactions, a line for each model."""
    from matplotlib.ticker import NullFormatter

    with figure(path, 1, 2, figsize=(9.6, 3.8)) as (_, (left, right)):
        for model, name in NAMES.items():
            found = curve(rows, "mini-batches", model, MAIN)
            if not found:
                continue
            sizes, style = column(found, "interactions"), {"color": COLORS[model]}
            time = column(found, "us_per_interaction")
            ends = [[1e6 * x / int(MAIN) for x in column(found, f"quartile_{q}_s")] for q in (1, 3)]
            left.plot(sizes, time, marker="o", markersize=4, label=name, **style)
            left.fill_between(sizes, *ends, alpha=0.15, linewidth=0, **style)
            limit = [time[0] * 1.15 ** math.log10(size / sizes[0]) for size in sizes]
            left.plot(sizes, limit, linestyle=":", linewidth=1, **style)
            peak = [x / 1024 for x in column(found, "peak_mib")]
            rest = [rest_mib(row) / 1024 for row in found]
            right.plot(sizes, peak, marker="o", markersize=4, label=f"{name}, peak", **style)
            right.plot(sizes, rest, linestyle="--", linewidth=1, label=f"{name}, rest", **style)
        left.plot([], [], color="black", linestyle=":", linewidth=1, label="15 % per tenfold")
        left.set(title=f"Training, batch of {MAIN}", ylabel="time per interaction (µs)")
        right.set(title="Peak memory of training", ylabel="GiB")
        for axis, place in ((left, "lower right"), (right, "upper left")):
            axis.set(xlabel="interactions", xscale="log", yscale="log")
            low, high = axis.get_ylim()
            axis.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc=place)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
