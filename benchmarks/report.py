"""Tables of README from the committed result rows.

    python benchmarks/report.py           # print them
    python benchmarks/report.py --write   # and put them into README.md

A test holds README equal to what this prints.
"""

import argparse
import csv
import statistics
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "accuracy.csv"
TESTS = ROOT / "benchmarks" / "results" / "significance.csv"
README = ROOT / "README.md"
START, END = "<!-- results -->", "<!-- end of results -->"
DATASETS = {
    "tiktok": "TikTok",
    "lfm2k": "LFM2k (image: graph-derived features)",
    "baby": "Baby (graph-derived features)",
}
MODELS = {"lightgcn": "LightGCN", "mgcn": "MGCN", "freedom": "FREEDOM", "gtc": "GTC"}
COLUMNS = [("recall", 5), ("recall", 20), ("ndcg", 5), ("ndcg", 20)]


def read_rows(path: Path = ROWS) -> list[dict[str, str]]:
    """All rows; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
        lines += [_row([*head, "s / epoch"]), _row(["---"] * (len(head) + 1))]
        for model, cells in table.items():
            texts = []
            for cell, top in zip(cells, best, strict=True):
                mean = f"{_mean(cell):.4f}"
                mean = f"**{mean}**" if _mean(cell) == top else mean
                texts.append(f"{mean} ± {statistics.stdev(cell.values()):.4f}")
            cost = {row["seconds_per_epoch"] for row in rows if _is(row, dataset, model)}
            seconds = statistics.median(map(float, cost))
            lines.append(_row([MODELS[model], *texts, f"{seconds:.1f}"]))
        lines += ["", *gains(tests, dataset)]
    return "\n".join(lines).rstrip()


def gains(tests: list[dict[str, str]], dataset: str) -> list[str]:
    """Lines of the table of GTC's relative gain over each baseline; none without tests."""
    found = {
        (row["baseline"], row["metric"], int(row["k"])): row
        for row in tests
        if row["dataset"] == dataset
    }
    head = [f"{'NDCG' if metric == 'ndcg' else 'Recall'}@{k}" for metric, k in COLUMNS]
    lines = []
    for model, name in MODELS.items():
        if (model, *COLUMNS[0]) in found:
            cells = [found[model, metric, k] for metric, k in COLUMNS]
            texts = [f"{float(c['gain']):+.1%} (p = {float(c['p_holm']):.1g})" for c in cells]
            lines.append(_row([name, *texts]))
    if lines:
        lines = [_row(["GTC's gain over", *head]), _row(["---"] * 5), *lines, ""]
    return lines


def _mean(cell: dict[int, float]) -> float:
    return statistics.fmean(cell.values())


def _is(row: dict[str, str], dataset: str, model: str) -> bool:
    return (row["dataset"], row["model"], row["preset"]) == (dataset, model, "default")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def with_results(readme: str, table: str) -> str:
    """The text of README with the table between its two marks."""
    if START not in readme or END not in readme:
        raise ValueError(f"README.md lacks {START!r} or {END!r}, between which the tables stand")
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n\n{table}\n\n{END}{after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    args = parser.parse_args()
    table = results_table(read_rows(), read_rows(TESTS))
    print(table)
    if args.write:
        beside = README.with_suffix(".part")
        beside.write_text(with_results(README.read_text(), table))
        beside.replace(README)
