"""Tables and plots of docs/total_correlation.md from the committed rows.

    python benchmarks/total_correlation_report.py           # print the tables
    python benchmarks/total_correlation_report.py --write   # put them into the page, draw the plots

A test holds the page equal to what this prints.
"""

import argparse
import math
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import markdown, write_text
from benchmarks.total_correlation import DIMS, NUM_TENSORS, TRUTHS, rows_of

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "total_correlation.md"
METHODS = {"total_correlation": "total correlation", "pairs": "pairwise InfoNCE"}
Rows = list[dict[str, str]]


def select(rows: Rows, **wanted: object) -> Rows:
    """The rows that have all the wanted entries."""
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def column(rows: Rows, name: str) -> list[float]:
    return [float(row[name]) for row in rows]


def gaussians_table() -> str:
    """Mean bound of the seeds, its share of the truth, its excess in standard errors."""
    rows = rows_of("gaussians")
    head = ["variables", "truth", "bound, mean of seeds", "share of truth", "lowest seed"]
    head += ["largest excess of a run, s. e.", "excess of the mean, s. e.", "draws"]
    body = []
    for t in NUM_TENSORS:
        for truth in TRUTHS:
            found = select(rows, num_tensors=t, truth=truth)
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
    rows = select(rows_of("xor"), method=method)
    last = select(rows, step=max(int(row["step"]) for row in rows))
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
                    found = select(rows, num_tensors=t, dim=dim, product_scale=scale)
                    cells.append(f"{statistics.fmean(column(found, name)):.3f}")
            body.append([str(t), str(dim), *cells])
    return markdown(head, body)


def memory_table() -> str:
    rows = rows_of("memory")
    head = ["N", "plain, MiB", "chunked, MiB"]
    body = []
    for num_rows in sorted({int(row["num_rows"]) for row in rows}):
        found = [select(rows, num_rows=num_rows, form=form) for form in ("plain", "chunked")]
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


def with_tables(page: str) -> str:
    """The text of the page with each table between its two marks."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if start not in page or end not in page:
            raise ValueError(f"the page lacks {start!r} or {end!r}, between which a table stands")
        before, _, rest = page.partition(start)
        _, _, after = rest.partition(end)
        page = f"{before}{start}\n{table()}\n{end}{after}"
    return page


def draw(folder: Path) -> None:
    """The three plots of the page."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4))
    limit = [0.0, max(TRUTHS) * 1.07]
    axes.plot(limit, limit, color="black", linewidth=1, label="truth")
    axes.fill_between(limit, [0.85 * x for x in limit], limit, color="0.9", label="within 15 %")
    for i, t in enumerate(NUM_TENSORS):
        found = select(rows_of("gaussians"), num_tensors=t)
        x, marker = column(found, "truth"), "+x"[i]
        axes.scatter(x, column(found, "bound"), marker=marker, label=f"{t} variables", zorder=2)
    axes.set(xlabel="total correlation (nats)", ylabel="lower bound on fresh rows (nats)")
    axes.set(xlim=limit, ylim=limit)
    axes.legend()
    _save(figure, folder / "total_correlation_gaussians.png")

    figure, axes = plt.subplots(figsize=(5, 4))
    for i, (method, title) in enumerate(METHODS.items()):
        found = select(rows_of("xor"), method=method)
        for seed in sorted({row["seed"] for row in found}):
            own = select(found, seed=seed)
            label = title if seed == "0" else None
            axes.plot(
                column(own, "step"), column(own, "accuracy"), color=f"C{i}", lw=1, label=label
            )
    axes.axhline(1 / 32, color="black", linewidth=1, linestyle=":", label="chance, 1 / 32")
    axes.set(xlabel="training step", ylabel="right z among 32", ylim=(-0.02, 1.03))
    axes.legend(loc="center right")
    _save(figure, folder / "total_correlation_xor.png")

    figure, axes = plt.subplots(figsize=(5, 4))
    for i, form in enumerate(("plain", "chunked")):
        found = select(rows_of("memory"), form=form)
        x, y = column(found, "num_rows"), column(found, "added_mib")
        axes.plot(x, y, marker="o", color=f"C{i}", label=form)
    axes.axhline(1024, color="black", linewidth=1, linestyle=":", label="1 GiB")
    axes.set(xlabel="rows N", ylabel="memory added at the peak (MiB)", xscale="log", yscale="log")
    axes.set_xticks([2000, 5000, 10_000, 20_000, 50_000], ["2k", "5k", "10k", "20k", "50k"])
    axes.set_xticks([], minor=True)
    axes.legend()
    _save(figure, folder / "total_correlation_memory.png")


def _save(figure, path: Path) -> None:  # type: ignore[no-untyped-def]
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the page and draw its plots")
    args = parser.parse_args()
    if args.write:
        (DOCS / "images").mkdir(exist_ok=True)
        draw(DOCS / "images")
        write_text(PAGE, with_tables(PAGE.read_text()))
    else:
        for name, table in TABLES.items():
            print(f"{name}\n{table()}\n")
