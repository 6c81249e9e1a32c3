from dataclasses import replace

import pytest

import minibatch_accuracy as bench
from growth_report import PAGE
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import Settings
from gtc_pyg.transforms import ItemKNNGraph
from harness import filled
from harness.data import DATASETS


def rows_of(fan_out, *values, model="gtc"):
    """A row for each seed."""
    shared = {"model": model, "fan_out": fan_out, "best_epoch": "7", "seconds_per_epoch": "2.0"}
    return [
        dict.fromkeys(bench.MINIBATCH.header, "")
        | shared
        | {"seed": str(seed), "val_recall@20": "0.1", "test_recall@20": str(value)}
        for seed, value in enumerate(values)
    ]


WHOLE = rows_of("whole", 0.09, 0.10, 0.11)


def test_the_page_shows_the_committed_rows():
    page, rows = PAGE.read_text(), bench.MINIBATCH.rows()
    assert filled(page, {"accuracy": bench.accuracy_table(rows)}) == page
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
    with pytest.raises(ValueError, match="seed 0 stands twice"):
        bench.accuracy_table([*WHOLE, WHOLE[0]])


def test_fan_outs_are_read():
    texts = ["whole", "15,10,5", "all,3"]
    assert list(map(bench._fan_out, texts)) == texts
    assert bench.hops_of("all,3") == [-1, 3]
    for wrong in ("15,", "none", "0,2"):
        with pytest.raises(SystemExit):
            bench.main(["--fan-out", wrong])


def test_a_run_that_has_a_row_is_skipped(tmp_path, monkeypatch):
    ran = []

    def run_one(dataset, **cell):
        ran.append(tuple(cell.values()))
        return dict.fromkeys(bench.MINIBATCH.header[3:-3], 1)

    monkeypatch.setattr(bench, "run_one", run_one)
    monkeypatch.setitem(DATASETS, "tiktok", lambda root: None)
    out = tmp_path / "rows.csv"
    for _ in range(2):
        bench.main(["--out", str(out), "--models", "gtc", "freedom", "--root", str(tmp_path)])
    assert len(ran) == len(set(ran)) == 2 * 2 * 5
    assert len(bench.MINIBATCH.rows(out)) == 20


def test_mini_batches_of_all_neighbours_learn_as_whole_graph(monkeypatch):
    pytest.importorskip("torch_sparse", reason="neighbours are sampled by torch-sparse")
    pytest.importorskip("lightning")
    dataset = PlantedPreferences(num_users=100, num_items=80, transform=ItemKNNGraph(k=5))
    short = Settings(lr=0.005, epochs=2)
    pruned = replace(short, epochs=1, model={"edge_dropout": 0.8})  # what mini-batches refuse
    chosen = {"lightgcn": short, "freedom": pruned}
    monkeypatch.setattr(bench, "example_settings", lambda name: chosen)
    whole, batches = (
        bench.run_one(dataset, "lightgcn", fan_out, 0) for fan_out in ("whole", "all,all")
    )
    for key in ("val_recall@20", "test_recall@20"):
        assert float(whole[key]) == pytest.approx(float(batches[key]), abs=0.02)
    assert (whole["epochs"], batches["epochs"]) == (2, 2)
    assert bench.run_one(dataset, "freedom", "5,5", 0)["epochs"] == 1
