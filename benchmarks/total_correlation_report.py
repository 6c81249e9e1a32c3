"""Tables and plots of docs/total_correlation.md from the committed rows."""

import math
import statistics
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import DOCS, Options, column, figure, fill, markdown, pick
from total_correlation import DIMS, NUM_TENSORS, TRUTHS, rows_of

PAGE = DOCS / "total_correlation.md"
METHODS = {"total_correlation": "total correlation", "pairs": "pairwise InfoNCE"}


def gaussians_table() -> str:
    """Mean bound of the seeds, its share of the truth, its excess in standard errors."""
    rows = rows_of("gaussians")
    head = ["variables", "truth", "bound, mean of seeds", "share of truth", "lowest seed"]
    head += ["largest excess of a run, s. e.", "excess of the mean, s. e.", "draws"]
    body = []
    for t in NUM_TENSORS:
        for truth in TRUTHS:
            found = pick(rows, num_tensors=t, truth=truth)
            bounds, errors = column(found, "bound"), column(found, "standard_error")
            excess = max((b - truth) / e for b, e in zip(bounds, errors, strict=True))
            mean = statistics.fmean(bounds)
            share, low = mean / truth, min(bounds) / truth
            pooled = (mean - truth) / (math.hypot(*errors) / len(errors))
            draws = f"{found[0]['num_draws']} of {int(found[0]['num_rows']):,} rows"
            cells = [f"{mean:.3f}", f"{share:.1%}", f"{low:.1%}", f"{excess:.1f}", f"{pooled:.1f}"]
            body.append([str(t), f"{truth:g}", *cells, draws])
    return markdown(head, body)


def final_accuracy(method: str) -> tuple[list[float], float, float]:
    """Of each seed after training, chance, and the standard error of their mean at chance."""
    rows = pick(rows_of("xor"), method=method)
    last = pick(rows, step=max(int(row["step"]) for row in rows))
    chance = 1 / math.isqrt(int(last[0]["num_pairs"]))
    error = math.sqrt(chance * (1 - chance) / sum(int(row["num_pairs"]) for row in last))
    return column(last, "accuracy"), chance, error


def xor_table() -> str:
    head = ["loss", "accuracy, mean of seeds", "each seed", "from chance, standard errors"]
    body = []
    for method, title in METHODS.items():
        found, chance, error = final_accuracy(method)
        each = ", ".join(f"{x:.4f}" for x in found)
        mean = statistics.fmean(found)
        body.append([title, f"{mean:.4f}", each, f"{(mean - chance) / error:+.1f}"])
    return markdown(head, body)


def scale_table() -> str:
    rows = rows_of("scale")
    names = ["excess at the start", "gradient at the start", "bound after training"]
    scales = ["none", "sqrt_dim"]
    head = ["T", "D", *(f"{name}, `'{scale}'`" for name in names for scale in scales)]
    body = []
    for t in (3, 4, 5):
        for dim in DIMS:
            cells = []
            for name in ("start_excess", "start_gradient", "bound"):
                for scale in scales:
                    found = pick(rows, num_tensors=t, dim=dim, product_scale=scale)
                    cells.append(f"{statistics.fmean(column(found, name)):.3f}")
            body.append([str(t), str(dim), *cells])
    return markdown(head, body)


def memory_table() -> str:
    rows = rows_of("memory")
    head = ["N", "plain, MiB", "chunked, MiB"]
    body = []
    for num_rows in sorted({int(row["num_rows"]) for row in rows}):
        found = [pick(rows, num_rows=num_rows, form=form) for form in ("plain", "chunked")]
        cells = [f"{float(x[0]['added_mib']):,.0f}" if x else "not run" for x in found]
        body.append([f"{num_rows:,}", *cells])
    return markdown(head, body)


def speed_table() -> str:
    head = ["N", "threads", "plain, s", "chunked, s", "ratio", "largest difference"]
    body = []
    for row in sorted(rows_of("speed"), key=lambda r: (int(r["num_rows"]), int(r["threads"]))):
        times = [f"{float(row[key]):.3f}" for key in ("plain_seconds", "chunked_seconds")]
        last = [f"{float(row['ratio']):.2f}", row["largest_relative_difference"]]
        body.append([f"{int(row['num_rows']):,}", row["threads"], *times, *last])
    return markdown(head, body)


TABLES = {
    "gaussians": gaussians_table,
    "xor": xor_table,
    "scale": scale_table,
    "memory": memory_table,
    "speed": speed_table,
}


def texts() -> dict[str, str]:
    return {name: table() for name, table in TABLES.items()}


def draw(folder: Path) -> None:
    """The three plots of the page."""
    with plotted(folder / "total_correlation_gaussians.png") as axes:
        limit = [0.0, max(TRUTHS) * 1.07]
        axes.plot(limit, limit, color="black", linewidth=1, label="truth")
        within = [0.85 * x for x in limit]
        axes.fill_between(limit, within, limit, color="0.9", label="within 15 %")
        for i, t in enumerate(NUM_TENSORS):
            found = pick(rows_of("gaussians"), num_tensors=t)
            x, bound = column(found, "truth"), column(found, "bound")
            axes.scatter(x, bound, marker="+x"[i], label=f"{t} variables", zorder=2)
        axes.set(xlabel="total correlation (nats)", ylabel="lower bound on fresh rows (nats)")
        axes.set(xlim=limit, ylim=limit)
        axes.legend()
    with plotted(folder / "total_correlation_xor.png") as axes:
        for i, (method, title) in enumerate(METHODS.items()):
            found = pick(rows_of("xor"), method=method)
            for seed in sorted({row["seed"] for row in found}):
                x, y = (column(pick(found, seed=seed), name) for name in ("step", "accuracy"))
                axes.plot(x, y, color=f"C{i}", lw=1, label=title if seed == "0" else None)
        axes.axhline(1 / 32, color="black", linewidth=1, linestyle=":", label="chance, 1 / 32")
        axes.set(xlabel="training step", ylabel="right z among 32", ylim=(-0.02, 1.03))
        axes.legend(loc="center right")
    with plotted(folder / "total_correlation_memory.png") as axes:
        for i, form in enumerate(("plain", "chunked")):
            found = pick(rows_of("memory"), form=form)
            x, y = column(found, "num_rows"), column(found, "added_mib")
            axes.plot(x, y, marker="o", color=f"C{i}", label=form)
        axes.axhline(1024, color="black", linewidth=1, linestyle=":", label="1 GiB")
        axes.set(xlabel="rows N", ylabel="memory added at the peak (MiB)")
        axes.set(xscale="log", yscale="log")
        axes.set_xticks([2000, 5000, 10_000, 20_000, 50_000], ["2k", "5k", "10k", "20k", "50k"])
        axes.set_xticks([], minor=True)
        axes.legend()


@contextmanager
def plotted(path: Path) -> Iterator[Any]:
    """One plot of the page."""
    more = {"figsize": (5, 4), "layout": None, "metadata": {"Software": None}}
    with figure(path, **more) as (made, axes):
        yield axes
        made.tight_layout()


def run(args: Namespace) -> None:
    if args.write:
        draw(DOCS / "images")
        fill(PAGE, texts(), "\n")
    else:
        for name, text in texts().items():
            print(f"{name}\n{text}\n")


if __name__ == "__main__":
    parser = Options(__file__)
    parser.add("--write", False, help="write the page and draw its plots")
    parser.start(None, run)
