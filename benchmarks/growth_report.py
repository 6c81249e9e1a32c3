"""Tables and plot of docs/growth.md from the rows of benchmarks/growth.py."""

import json
import math
import statistics
from pathlib import Path

from benchmarks.rows import between, markdown, write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "growth.md"
PLOT = ROOT / "docs" / "images" / "growth.png"
NAMES = {"lightgcn": "LightGCN", "freedom": "FREEDOM", "gtc": "GTC"}
COLORS = {"lightgcn": "tab:gray", "freedom": "tab:orange", "gtc": "tab:blue"}
MAIN = "32"  # the batch of the curves
NONE = "Not measured yet."
FIGURE = (
    "![Time per interaction and peak memory against the number of interactions](images/growth.png)"
)

Row = dict[str, str]


def curve(rows: list[Row], what: str, model: str, batch: str) -> list[Row]:
    """The rows of one line, by size; no size may stand twice."""
    wanted = (what, model, batch)
    found = [row for row in rows if (row["what"], row["model"], row["batch"]) == wanted]
    sizes = [int(row["interactions"]) for row in found]
    if len(set(sizes)) < len(sizes):
        raise ValueError(f"a size stands twice for {wanted}")
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


def time_table(rows: list[Row], what: str = "mini-batches") -> str:
    """Time by batch, model and size, and how it grows."""
    head = ["", "interactions", "nodes a step", "step, ms", "of it sampling", "µs / interaction"]
    head += ["per tenfold, from the size before", "from the smallest", "epoch (extrapolated)"]
    lines = []
    for batch in sorted({row["batch"] for row in rows if row["what"] == what}, key=int):
        body = []
        for model, name in NAMES.items():
            for row in curve(rows, what, model, batch):
                step, share = float(row["step_s"]), float(row["sampling_s"]) / float(row["step_s"])
                quartiles = [1e3 * float(row[f"quartile_{q}_s"]) for q in (1, 3)]
                nodes = int(row["sampled_users"]) + int(row["sampled_items"])
                cells = [name, f"{int(row['interactions']):,}", f"{nodes:,}"]
                cells += [f"{1e3 * step:.1f} ({quartiles[0]:.1f} to {quartiles[1]:.1f})"]
                cells += [f"{share:.0%}", f"{float(row['us_per_interaction']):.0f}"]
                for to in ("previous", "smallest"):
                    shown = [f"{growth:+.0%}" for growth in growth_per_tenfold(row, to)]
                    cells += [f"{shown[0]} ({shown[1]} to {shown[2]})" if shown else ""]
                body.append([*cells, _duration(float(row["epoch_extrapolated_s"]))])
        first = next(row for row in rows if (row["what"], row["batch"]) == (what, batch))
        hops = f", fan-out {first['fan_out']}, similar items {first['item_fan_out']}"
        title = f"**Batch of {batch}**" + (hops if first["fan_out"] else "")
        threads = "1 thread" if first["threads"] == "1" else f"{first['threads']} threads"
        title += f", {first['steps']} steps in {first['rounds']} turns, {threads}"
        lines += [title, "", markdown(head, body), ""]
    return "\n".join(lines).rstrip() or NONE


def memory_table(rows: list[Row]) -> str:
    """Peaks of mini-batch training beside what must grow."""
    head = ["", "interactions", "set-up peak, MiB", "training peak, MiB", "tables and states"]
    head += ["content", "adjacency", "rest"]
    body = []
    for model, name in NAMES.items():
        for row in curve(rows, "mini-batches", model, MAIN):
            keys = ("setup_peak_mib", "peak_mib", "tables_mib", "content_mib", "adjacency_mib")
            cells = [f"{float(row[key]):,.0f}" for key in keys]
            size = f"{int(row['interactions']):,}"
            body.append([name, size, *cells, f"{rest_mib(row):,.0f}"])
    return markdown(head, body) if body else NONE


def item_table(rows: list[Row]) -> str:
    """Exact item graphs: time and memory."""
    head = [
        "items",
        "threads",
        "seconds",
        "µs / item",
        "peak, MiB",
        "content, MiB",
        "quadratic, MiB",
    ]
    found = [row for row in rows if row["what"] == "item graph"]
    body = []
    for row in sorted(found, key=lambda row: (int(row["items"]), int(row["threads"]))):
        num = int(row["items"])
        cells = [f"{num:,}", row["threads"], row["step_s"], row["us_per_interaction"]]
        cells += [f"{float(row[key]):,.0f}" for key in ("peak_mib", "content_mib")]
        body.append([*cells, f"{4 * num**2 / 2**20:,.0f}"])
    return markdown(head, body) if body else NONE


def with_tables(page: str, rows: list[Row]) -> str:
    """The page with its tables between their marks."""
    tables = {
        "plot": FIGURE if _has_curves(rows) else NONE,
        "time": time_table(rows),
        "memory": memory_table(rows),
        "whole": time_table(rows, "whole graph"),
        "items": item_table(rows),
    }
    for name, table in tables.items():
        page = between(page, name, table)
    return page


def draw(rows: list[Row], path: Path = PLOT) -> None:
    """Time per interaction and peak memory against interactions, a line for each model."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
    for model, name in NAMES.items():
        found = curve(rows, "mini-batches", model, MAIN)
        if not found:
            continue
        sizes, style = [int(row["interactions"]) for row in found], {"color": COLORS[model]}
        time = [float(row["us_per_interaction"]) for row in found]
        ends = [[1e6 * float(row[f"quartile_{q}_s"]) / int(MAIN) for row in found] for q in (1, 3)]
        left.plot(sizes, time, marker="o", markersize=4, label=name, **style)
        left.fill_between(sizes, *ends, alpha=0.15, linewidth=0, **style)
        limit = [time[0] * 1.15 ** math.log10(size / sizes[0]) for size in sizes]
        left.plot(sizes, limit, linestyle=":", linewidth=1, **style)
        peak = [float(row["peak_mib"]) / 1024 for row in found]
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _has_curves(rows: list[Row]) -> bool:
    return any((row["what"], row["batch"]) == ("mini-batches", MAIN) for row in rows)


def write(rows: list[Row]) -> None:
    """Fills the page and draws."""
    write_text(PAGE, with_tables(PAGE.read_text(), rows))
    if _has_curves(rows):
        draw(rows)


def spread(values: list[float], digits: int = 4) -> str:
    """Mean and sample standard deviation."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
