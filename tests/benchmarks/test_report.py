from collections import Counter

import pytest

from benchmarks.report import (
    README,
    ROWS,
    TESTS,
    gains,
    results_table,
    values,
)
from benchmarks.rows import between, read_rows
from benchmarks.speed_report import cost_table, read_results

FLOORS = {  # what the first release promises: mean test Recall@20 over the seeds
    "tiktok": {"lightgcn": 0.084, "freedom": 0.088, "gtc": 0.090},
    "lfm2k": {"lightgcn": 0.39, "freedom": 0.405, "gtc": 0.39},
    "baby": {"lightgcn": 0.072, "freedom": 0.096, "gtc": 0.090},
}


def test_readme_shows_the_committed_rows():
    readme, table = README.read_text(), results_table(read_rows(ROWS), read_rows(TESTS))
    assert between(readme, "results", table) == readme
    assert between(readme, "cost", cost_table(read_results())) == readme


def test_readme_says_how_many_gains_count():
    counted = Counter(
        row["dataset"]
        for row in read_rows(TESTS)
        if float(row["difference"]) > 0 and float(row["p_holm"]) < 0.01
    )
    assert len(read_rows(TESTS)) == 36
    words = {9: "nine", 10: "ten", 12: "twelve"}
    tiktok, lfm2k, baby = (words[counted[name]] for name in ("tiktok", "lfm2k", "baby"))
    assert (
        f"all {baby} comparisons on Baby, {tiktok} of twelve on TikTok, {lfm2k} of twelve on LFM2k"
        in " ".join(README.read_text().split())
    )


@pytest.mark.parametrize("dataset", FLOORS)
def test_committed_runs_reach_their_floors(dataset):
    wanted = {"dataset": dataset, "preset": "default", "split": "test", "metric": "recall", "k": 20}
    for model, floor in FLOORS[dataset].items():
        runs = values(read_rows(ROWS), model=model, **wanted)
        assert sorted(runs) == [0, 1, 2, 3, 4], ROWS
        assert sum(runs.values()) / 5 >= floor, model


def test_a_gain_is_shown_with_its_chance_and_a_loss_as_plainly():
    key = {"dataset": "baby", "baseline": "freedom"}
    columns = [("recall", 5), ("recall", 20), ("ndcg", 5), ("ndcg", 20)]
    numbers = [("0.1", "0.001"), ("-0.052", "1"), ("0", "0.5"), ("0.2", "3.4e-08")]
    rows = [
        {**key, "metric": metric, "k": str(k), "gain": gain, "p_holm": p}
        for (metric, k), (gain, p) in zip(columns, numbers, strict=True)
    ]
    line = "| FREEDOM | +10.0% (p = 0.001) | -5.2% (p = 1) | +0.0% (p = 0.5) | +20.0% (p = 3e-08) |"
    assert gains(rows, "baby").splitlines()[2] == line
    assert gains(rows, "tiktok") == ""


def test_every_row_says_what_it_came_from():
    for row in read_rows(ROWS):
        assert all(row.values()), row
        assert "dirty" not in row["commit"], row
        derived = row["dataset"] in ("baby", "lfm2k") and row["model"] != "lightgcn"
        assert ("graph-derived" in row["features"]) == derived, row


def test_a_seed_that_stands_twice_is_refused():
    row = {"seed": "0", "value": "0.1", "model": "gtc"}
    with pytest.raises(ValueError, match="a seed twice"):
        values([row, row], model="gtc")
