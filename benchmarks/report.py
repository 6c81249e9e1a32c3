"""Tables of README from the committed result rows.

    python benchmarks/report.py           # print them
    python benchmarks/report.py --write   # and put them into README.md

A test holds README equal to what this prints.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import between, markdown, read_rows, write_text
from benchmarks.speed_report import cost_table, read_results

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "accuracy.csv"
TESTS = ROOT / "benchmarks" / "results" / "significance.csv"
README = ROOT / "README.md"
DATASETS = {
    "tiktok": "TikTok",
    "lfm2k": "LFM2k (image: graph-derived features)",
    "baby": "Baby (graph-derived features)",
}
MODELS = {"lightgcn": "LightGCN", "mgcn": "MGCN", "freedom": "FREEDOM", "gtc": "GTC"}
COLUMNS = [("recall", 5), ("recall", 20), ("ndcg", 5), ("ndcg", 20)]


def values(rows: list[dict[str, str]], **wanted: object) -> dict[int, float]:
    """Seed to value of the rows that have all the wanted entries; no seed may stand twice."""
    found = [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]
    seeds = {int(row["seed"]): float(row["value"]) for row in found}
    if len(seeds) < len(found):
        raise ValueError(f"{ROWS} has a seed twice for {wanted}")
    return seeds


def results_table(rows: list[dict[str, str]], tests: list[dict[str, str]]) -> str:
    """Test metrics, mean and sample standard deviation over seeds; the best mean is bold.

    And GTC's gain over each baseline, with p of the test over users (Holm-corrected).
    """
    head = ["", *(f"{'NDCG' if metric == 'ndcg' else 'Recall'}@{k}" for metric, k in COLUMNS)]
    lines = []
    for dataset, title in DATASETS.items():
        wanted = {"dataset": dataset, "preset": "default", "split": "test"}
        table = {
            model: [values(rows, model=model, metric=m, k=k, **wanted) for m, k in COLUMNS]
            for model in MODELS
            if any(_is(row, dataset, model) for row in rows)
        }
        best = [max(map(_mean, column)) for column in zip(*table.values(), strict=True)]
        seeds = sorted(table["gtc"][0])
        lines += [f"**{title}**, test, seeds {', '.join(map(str, seeds))}", ""]
        body = []
        for model, cells in table.items():
            texts = []
            for cell, top in zip(cells, best, strict=True):
                mean = f"{_mean(cell):.4f}"
                mean = f"**{mean}**" if _mean(cell) == top else mean
                texts.append(f"{mean} ± {statistics.stdev(cell.values()):.4f}")
            cost = {row["seconds_per_epoch"] for row in rows if _is(row, dataset, model)}
            seconds = statistics.median(map(float, cost))
            body.append([MODELS[model], *texts, f"{seconds:.1f}"])
        gained = gains(tests, dataset)
        lines += [markdown([*head, "s / epoch"], body), "", *([gained, ""] if gained else [])]
    return "\n".join(lines).rstrip()


def gains(tests: list[dict[str, str]], dataset: str) -> str:
    """The table of GTC's relative gain over each baseline; none without tests."""
    found = {
        (row["baseline"], row["metric"], int(row["k"])): row
        for row in tests
        if row["dataset"] == dataset
    }
    head = [f"{'NDCG' if metric == 'ndcg' else 'Recall'}@{k}" for metric, k in COLUMNS]
    body = []
    for model, name in MODELS.items():
        if (model, *COLUMNS[0]) in found:
            cells = [found[model, metric, k] for metric, k in COLUMNS]
            texts = [f"{float(c['gain']):+.1%} (p = {float(c['p_holm']):.1g})" for c in cells]
            body.append([name, *texts])
    return markdown(["GTC's gain over", *head], body) if body else ""


def _mean(cell: dict[int, float]) -> float:
    return statistics.fmean(cell.values())


def _is(row: dict[str, str], dataset: str, model: str) -> bool:
    return (row["dataset"], row["model"], row["preset"]) == (dataset, model, "default")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    args = parser.parse_args()
    table, cost = results_table(read_rows(ROWS), read_rows(TESTS)), cost_table(read_results())
    print(table, cost, sep="\n\n")
    if args.write:
        readme = between(README.read_text(), "results", table)
        write_text(README, between(readme, "cost", cost))
