"""Tables and plot of docs/missing_modality.md; ``missing_modality.py --report`` makes them."""

import statistics
from pathlib import Path

from scipy.stats import ttest_1samp

from benchmarks.missing_modality_fills import MEASURED, REMOVED, TRAINED
from benchmarks.rows import between, markdown

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "missing_modality.md"
PLOT = DOCS / "images" / "missing_modality.png"
Rows = list[dict[str, str]]


def losses(rows: Rows, metric: str = "test_recall@20", **group: object) -> dict[str, list[float]]:
    """Condition to metric of each seed, over the seeds that all trained conditions share.

    Args:
        rows: As :func:`benchmarks.rows.read_rows` gives them.
        metric: A column.
        **group: ``dataset``, ``given`` and ``rate``.
    """
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        wanted = dict(group, rate="0.0") if row["condition"] == "complete" else group
        if row[metric] and all(row[key] == str(value) for key, value in wanted.items()):
            seeds = found.setdefault(row["condition"], {})
            if int(row["seed"]) in seeds:
                raise ValueError(f"seed {row['seed']} stands twice for {row['condition']} {wanted}")
            seeds[int(row["seed"])] = float(row[metric])
    if any(name not in found for name in TRAINED):
        return {}
    shared = sorted(set.intersection(*(set(found[name]) for name in TRAINED)))
    return {
        name: [found[name][seed] for seed in shared]
        for name in found
        if shared and set(shared) <= set(found[name])
    }


def half_test(table: dict[str, list[float]], baseline: str) -> tuple[float, float]:
    """The share of the baseline's loss that ``fill`` loses, and p of "it is less than half".

    The share is that of the means. p is of a one-sided t-test over seeds on
    ``loss(fill) - loss(baseline) / 2``; not a number with one seed.
    """
    lost = {
        name: [full - value for full, value in zip(table["complete"], table[name], strict=True)]
        for name in ("fill", baseline)
    }
    share = statistics.fmean(lost["fill"]) / statistics.fmean(lost[baseline])
    excess = [fill - base / 2 for fill, base in zip(*lost.values(), strict=True)]
    if len(excess) < 2:
        return share, float("nan")
    return share, float(ttest_1samp(excess, 0.0, alternative="less").pvalue)


def recall_table(rows: Rows) -> str:
    """Test Recall@20 by dataset, content given and rate, and what a fill keeps."""
    head = ["content of GTC", "removed", "in its place", "Recall@20", "lost", "fill loses"]
    tables = []
    for dataset, modality in REMOVED.items():
        body = []
        for given in ("all", "alone"):
            for rate in _rates(rows):
                table = losses(rows, dataset=dataset, given=given, rate=rate)
                if not table:
                    continue
                full = statistics.fmean(table["complete"])
                shown = "all" if given == "all" else f"{modality} alone"
                for name, values in table.items():
                    share = ""
                    if name in ("zero", "mean", "learned", "ridge"):
                        share = "nothing is lost"
                    if share and full > statistics.fmean(values):
                        kept, p = half_test(table, name)
                        share = f"{kept:.2f} of it" + ("" if p != p else f" (p = {p:.3f})")
                    cells = [shown, f"{float(rate):.0%}", name, _spread(values)]
                    body.append([*cells, f"{full - statistics.fmean(values):.4f}", share])
                body.append([f"seeds: {len(table['complete'])}", *[""] * 5])
        if body:
            tables.append(f"**{dataset}, {modality}**\n\n{markdown(head, body)}")
    return "\n\n".join(tables)


def content_table(rows: Rows) -> str:
    """How near filled content comes to the removed one, over the seeds that all fills share."""
    body = []
    for dataset, modality in REMOVED.items():
        for rate in _rates(rows):
            key = {"dataset": dataset, "modality": modality, "given": "content only", "rate": rate}
            own = [row for row in rows if key.items() <= row.items()]
            found = {
                name: {row["seed"]: row for row in own if row["condition"] == name}
                for name in MEASURED
            }
            seeds = sorted(set.intersection(*(set(of_seed) for of_seed in found.values())))
            if seeds:
                count = f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
                for label, metric in (("cosine", "cosine"), ("neighbours", "overlap")):
                    cells = [
                        _spread([float(found[name][seed][metric]) for seed in seeds], 3)
                        for name in MEASURED
                    ]
                    shown = f"{dataset}, {modality} ({count}): {label}"
                    body.append([shown, f"{float(rate):.0%}", *cells])
    return markdown(["", "removed", *MEASURED], body)


def _rates(rows: Rows) -> list[str]:
    """The shares that were removed."""
    return sorted({row["rate"] for row in rows} - {"0.0"})


def _spread(values: list[float], digits: int = 4) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def with_tables(page: str, rows: Rows) -> str:
    """The page with both tables between their marks."""
    for name, table in (("recall", recall_table(rows)), ("content", content_table(rows))):
        page = between(page, name, table)
    return page


def draw(rows: Rows, path: Path = PLOT) -> None:
    """Recall@20 against the share that was removed, a line for each fill."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        ("lfm2k", "all"): "LFM2k, text removed; GTC has all content",
        ("lfm2k", "alone"): "LFM2k, text removed; GTC has text alone",
        ("tiktok", "all"): "TikTok, image removed; GTC has all content",
        ("tiktok", "alone"): "TikTok, image removed; GTC has image alone",
    }
    colors = {"zero": "tab:gray", "mean": "tab:orange", "fill": "tab:blue"}
    tables: dict[tuple[str, str], dict[float, dict[str, list[float]]]] = {}
    for dataset, given in titles:
        for rate in _rates(rows):
            table = losses(rows, dataset=dataset, given=given, rate=rate)
            if table:
                tables.setdefault((dataset, given), {})[float(rate)] = table
    if not tables:
        raise ValueError("no rows of all trained conditions for any seed: nothing to draw")
    figure, axes = plt.subplots(
        1, len(tables), figsize=(4.6 * len(tables), 3.6), squeeze=False, layout="constrained"
    )
    for axis, (key, by_rate) in zip(axes[0], tables.items(), strict=True):
        for name, color in colors.items():
            points = {0.0: next(iter(by_rate.values()))["complete"]}
            points |= {rate: table[name] for rate, table in by_rate.items()}
            mean = [statistics.fmean(values) for values in points.values()]
            axis.plot([100 * rate for rate in points], mean, color=color, label=name)
            for rate, values in points.items():
                axis.scatter([100 * rate] * len(values), values, s=10, color=color, alpha=0.6)
        axis.set(title=titles[key], xlabel="items without the modality (%)")
        axis.title.set_fontsize(10)
        axis.set_ylabel("test Recall@20")
        axis.grid(alpha=0.3)
        axis.legend(title="in its place")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
