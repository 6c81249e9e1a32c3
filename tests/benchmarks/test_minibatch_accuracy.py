from dataclasses import replace

import pytest

from benchmarks import minibatch_accuracy as bench
from benchmarks.growth_report import PAGE
from benchmarks.rows import between


def rows_of(fan_out, *values, model="gtc"):
    """A row for each seed."""
    shared = {"model": model, "fan_out": fan_out, "best_epoch": "7", "seconds_per_epoch": "2.0"}
    return [
        dict.fromkeys(bench.HEADER, "")
        | shared
        | {"seed": str(seed), "val_recall@20": "0.1", "test_recall@20": str(value)}
        for seed, value in enumerate(values)
    ]


WHOLE = rows_of("whole", 0.09, 0.10, 0.11)


def test_the_page_shows_the_committed_rows():
    page, rows = PAGE.read_text(), bench.read_rows(bench.ROWS)
    assert between(page, "accuracy", bench.accuracy_table(rows)) == page
    for row in rows:
        assert all(row.values()), row


def test_the_table_by_hand():
    # Differences -.01, 0, -.005: mean -.005, deviation .005, t = -sqrt(3), p = .225 at 2 degrees.
    table = bench.accuracy_table([*rows_of("15,10,5", 0.08, 0.10, 0.105), *WHOLE])
    whole, sampled = table.splitlines()[2:]
    assert whole == ("| GTC | whole | 3 | 0.1000 ± 0.0000 | 0.1000 ± 0.0100 |  |  |  | 7 | 2.0 |")
    assert sampled == (
        "| GTC | 15, 10, 5 | 3 | 0.1000 ± 0.0000 | 0.0950 ± 0.0132 | -0.0050 | 0.0100 | 0.23 "
        "| 7 | 2.0 |"
    )


def test_only_shared_seeds_are_compared():
    fewer = rows_of("15,10,5", 0.08, 0.10, 0.105)[:1]
    assert bench.accuracy_table([*WHOLE, *fewer]).splitlines()[-1].count("|  |") > 0
    with pytest.raises(ValueError, match="a seed stands twice"):
        bench.accuracy_table([*WHOLE, WHOLE[0]])


def test_fan_outs_are_read():
    args = bench.parse_args(["--fan-out", "whole", "15,10,5", "all,3"])
    assert args.fan_out == ["whole", "15,10,5", "all,3"]
    assert bench.hops_of("all,3") == [-1, 3]
    for wrong in ("15,", "none", "0,2"):
        with pytest.raises(SystemExit):
            bench.parse_args(["--fan-out", wrong])


def test_a_run_that_has_a_row_is_skipped(tmp_path, monkeypatch):
    ran = []

    def run_one(dataset, *key):
        ran.append(key)
        return dict.fromkeys(bench.HEADER[3:-3], 1)

    monkeypatch.setattr(bench, "run_one", run_one)
    monkeypatch.setattr(bench, "TikTok", lambda *args, **options: None)
    args = bench.parse_args(["--out", str(tmp_path / "rows.csv"), "--models", "gtc", "freedom"])
    for _ in range(2):
        bench.run(args)
    assert len(ran) == len(set(ran)) == 2 * 2 * 5
    assert len(bench.read_rows(args.out)) == 20


def test_mini_batches_with_all_neighbours_learn_as_the_whole_graph_does(
    monkeypatch, planted_dataset
):
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    pytest.importorskip("lightning")
    dataset = planted_dataset(100, 80, mean_degree=20.0)
    settings = bench.runpy.run_path(str(bench.EXAMPLE))["SETTINGS"]
    short = type(settings["lightgcn"])(lr=0.005, epochs=2)
    pruned = replace(short, epochs=1, model={"edge_dropout": 0.8})  # what mini-batches refuse
    chosen = {"lightgcn": short, "freedom": pruned}
    monkeypatch.setattr(bench.runpy, "run_path", lambda path: {"SETTINGS": chosen})
    whole, batches = (
        bench.run_one(dataset, "lightgcn", fan_out, 0) for fan_out in ("whole", "all,all")
    )
    for key in ("val_recall@20", "test_recall@20"):
        assert float(whole[key]) == pytest.approx(float(batches[key]), abs=0.02)
    assert (whole["epochs"], batches["epochs"]) == (2, 2)
    assert bench.run_one(dataset, "freedom", "5,5", 0)["epochs"] == 1
