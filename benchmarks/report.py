"""Tables of README from the committed result rows."""

import statistics
from argparse import Namespace

from harness import RESULTS, ROOT, Options, by_seed, column, fill, markdown, pick, read_rows
from harness.data import TITLES
from harness.stats import Rows
from speed_report import cost_table, read_results

ROWS, TESTS = RESULTS / "accuracy.csv", RESULTS / "significance.csv"
README = ROOT / "README.md"
MODELS = {"lightgcn": "LightGCN", "mgcn": "MGCN", "freedom": "FREEDOM", "gtc": "GTC"}
COLUMNS = [("recall", 5), ("recall", 20), ("ndcg", 5), ("ndcg", 20)]
HEAD = [f"{'NDCG' if metric == 'ndcg' else 'Recall'}@{k}" for metric, k in COLUMNS]


def values(rows: Rows, **wanted: object) -> dict[int, float]:
    """Seed to value of the rows that have all the wanted entries; no seed may stand twice."""
    return {seed: float(row["value"]) for seed, row in by_seed(rows, **wanted).items()}


def results_table(rows: Rows, tests: Rows) -> str:
    """Test metrics, mean and sample standard deviation over seeds; the best mean is bold.

    And GTC's gain over each baseline, with p of the test over users (Holm-corrected).
    """
    lines = []
    for dataset, title in TITLES.items():
        own = pick(rows, dataset=dataset, preset="default")
        table = {
            model: [values(pick(own, split="test"), model=model, metric=m, k=k) for m, k in COLUMNS]
            for model in MODELS
            if pick(own, model=model)
        }
        means = {
            model: [statistics.fmean(x.values()) for x in cells] for model, cells in table.items()
        }
        best = [max(found) for found in zip(*means.values(), strict=True)]
        lines += [f"**{title}**, test, seeds {', '.join(map(str, sorted(table['gtc'][0])))}", ""]
        body = []
        for model, cells in table.items():
            texts = [
                (f"**{x:.4f}**" if x == top else f"{x:.4f}")
                + f" ± {statistics.stdev(c.values()):.4f}"
                for c, x, top in zip(cells, means[model], best, strict=True)
            ]
            cost = {*column(pick(own, model=model), "seconds_per_epoch")}
            body.append([MODELS[model], *texts, f"{statistics.median(cost):.1f}"])
        gained = gains(tests, dataset)
        lines += [markdown(["", *HEAD, "s / epoch"], body), "", *([gained, ""] if gained else [])]
    return "\n".join(lines).rstrip()


def gains(tests: Rows, dataset: str) -> str:
    """The table of GTC's relative gain over each baseline; none without tests."""
    body = []
    for model, name in MODELS.items():
        own = pick(tests, dataset=dataset, baseline=model)
        found = [row for m, k in COLUMNS for row in pick(own, metric=m, k=k)]
        cells = [f"{float(row['gain']):+.1%} (p = {float(row['p_holm']):.1g})" for row in found]
        body += [[name, *cells]] if cells else []
    return markdown(["GTC's gain over", *HEAD], body) if body else ""


def texts() -> dict[str, str]:
    results = results_table(read_rows(ROWS), read_rows(TESTS))
    return {"results": results, "cost": cost_table(read_results())}


def run(args: Namespace) -> None:
    print(*texts().values(), sep="\n\n")
    if args.write:
        fill(README, texts())


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__)
    parser.add("--write", False, help="put the tables into README.md")
    parser.start(argv, run)


if __name__ == "__main__":
    main()
