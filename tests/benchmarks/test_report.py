import pytest

from benchmarks.report import README, ROWS, read_rows, results_table, values, with_results

FLOORS = {  # what the first release promises: mean test Recall@20 of three seeds
    "tiktok": {"lightgcn": 0.084, "freedom": 0.088, "gtc": 0.090},
    "lfm2k": {"lightgcn": 0.39, "freedom": 0.405, "gtc": 0.39},
    "baby": {"lightgcn": 0.072, "freedom": 0.096, "gtc": 0.090},
}


def test_readme_shows_the_committed_rows():
    readme = README.read_text()
    assert with_results(readme, results_table(read_rows())) == readme


@pytest.mark.parametrize("dataset", FLOORS)
def test_committed_runs_reach_their_floors(dataset):
    wanted = {"dataset": dataset, "preset": "default", "split": "test", "metric": "recall", "k": 20}
    for model, floor in FLOORS[dataset].items():
        runs = values(read_rows(), model=model, **wanted)
        assert sorted(runs) == [0, 1, 2], ROWS
        assert sum(runs.values()) / 3 >= floor, model


def test_every_row_says_what_it_came_from():
    for row in read_rows():
        assert all(row.values()), row
        assert "dirty" not in row["commit"], row
        derived = row["dataset"] in ("baby", "lfm2k") and row["model"] != "lightgcn"
        assert ("graph-derived" in row["features"]) == derived, row


def test_a_readme_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="lacks '<!-- results -->'"):
        with_results("# gtc-pyg", "table")


def test_a_seed_that_stands_twice_is_refused():
    row = {"seed": "0", "value": "0.1", "model": "gtc"}
    with pytest.raises(ValueError, match="a seed twice"):
        values([row, row], model="gtc")
