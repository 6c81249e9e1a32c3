"""Tables and plot of docs/missing_modality.md; ``missing_modality.py --report`` makes them."""

import statistics
from pathlib import Path

from harness import DOCS, by_seed, column, figure, markdown, pick, spread
from harness.stats import Rows
from missing_modality_fills import MEASURED, REMOVED, TRAINED

PAGE, PLOT = DOCS / "missing_modality.md", DOCS / "images" / "missing_modality.png"
TITLES = {"lfm2k": "LFM2k", "tiktok": "TikTok"}
COLORS = {"zero": "tab:gray", "mean": "tab:orange", "fill": "tab:blue"}


def losses(rows: Rows, metric: str = "test_recall@20", **group: object) -> dict[str, list[float]]:
    """Condition to metric of each seed, over the seeds that all trained conditions share.

    Args:
        rows: Those of the experiment.
        metric: A column.
        **group: ``dataset``, ``given`` and ``rate``.
    """
    whole = pick(rows, **{**group, "rate": "0.0"}, condition="complete")
    own = [r for r in pick(rows, **group) if r["condition"] != "complete"]
    own = [row for row in [*whole, *own] if row[metric]]
    found = {
        name: by_seed(own, condition=name) for name in dict.fromkeys(r["condition"] for r in own)
    }
    if any(name not in found for name in TRAINED):
        return {}
    shared = sorted(set.intersection(*(set(found[name]) for name in TRAINED)))
    return {
        name: [float(seeds[seed][metric]) for seed in shared]
        for name, seeds in found.items()
        if shared and set(shared) <= set(seeds)
    }


def half_test(table: dict[str, list[float]], baseline: str) -> tuple[float, float]:
    """The share of the baseline's loss that ``fill`` loses, and p of "it is less than half".

    The share is that of the means. p is of a one-sided t-test over seeds on
    ``loss(fill) - loss(baseline) / 2``; not a number with one seed.
    """
    from scipy.stats import ttest_1samp

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
        for given, shown in (("all", "all"), ("alone", f"{modality} alone")):
            for rate in _rates(rows):
                table = losses(rows, dataset=dataset, given=given, rate=rate)
                full = statistics.fmean(table["complete"]) if table else 0.0
                for name, values in table.items():
                    share, lost = "", full - statistics.fmean(values)
                    if name in ("zero", "mean", "learned", "ridge"):
                        share = "nothing is lost"
                        if lost > 0:
                            kept, p = half_test(table, name)
                            share = f"{kept:.2f} of it" + ("" if p != p else f" (p = {p:.3f})")
                    cells = [shown, f"{float(rate):.0%}", name, spread(values)]
                    body.append([*cells, f"{lost:.4f}", share])
                if table:
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
            found = {name: by_seed(pick(rows, **key), condition=name) for name in MEASURED}
            seeds = sorted(set.intersection(*map(set, found.values())))
            count = f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
            for label, metric in (("cosine", "cosine"), ("neighbours", "overlap")) if seeds else ():
                cells = [
                    spread(column((runs[s] for s in seeds), metric), 3) for runs in found.values()
                ]
                body.append(
                    [f"{dataset}, {modality} ({count}): {label}", f"{float(rate):.0%}", *cells]
                )
    return markdown(["", "removed", *MEASURED], body)


def _rates(rows: Rows) -> list[str]:
    """The shares that were removed."""
    return sorted({row["rate"] for row in rows} - {"0.0"})


def texts(rows: Rows) -> dict[str, str]:
    return {"recall": recall_table(rows), "content": content_table(rows)}


def draw(rows: Rows, path: Path = PLOT) -> None:
    """Recall@20 against the share that was removed, a line for each fill."""
    panels: dict[str, dict[float, dict[str, list[float]]]] = {}
    for dataset, modality in REMOVED.items():
        for given, has in (("all", "all content"), ("alone", f"{modality} alone")):
            title = f"{TITLES[dataset]}, {modality} removed; GTC has {has}"
            for rate in _rates(rows):
                table = losses(rows, dataset=dataset, given=given, rate=rate)
                if table:
                    panels.setdefault(title, {})[float(rate)] = table
    if not panels:
        raise ValueError("no rows of all trained conditions for any seed: nothing to draw")
    size = (4.6 * len(panels), 3.6)
    with figure(path, 1, len(panels), figsize=size, squeeze=False) as (_, axes):
        for axis, (title, by_rate) in zip(axes[0], panels.items(), strict=True):
            for name, color in COLORS.items():
                points = {0.0: next(iter(by_rate.values()))["complete"]}
                points |= {rate: table[name] for rate, table in by_rate.items()}
                mean = [statistics.fmean(values) for values in points.values()]
                axis.plot([100 * rate for rate in points], mean, color=color, label=name)
                for rate, values in points.items():
                    axis.scatter([100 * rate] * len(values), values, s=10, color=color, alpha=0.6)
            axis.set(title=title, xlabel="items without the modality (%)")
            axis.title.set_fontsize(10)
            axis.set_ylabel("test Recall@20")
            axis.grid(alpha=0.3)
            axis.legend(title="in its place")
