import json
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("lightning")
pytest.importorskip("matplotlib")

import significance
import where_it_helps as bench
from harness import read_rows, write_rows


def run_of(recall, found, user_degree, item_degree):
    return {
        "rows": json.dumps([{"commit": "abc"}]),
        "recall@20": np.array(recall),
        "found": np.array(found),
        "user_degree": np.array(user_degree),
        "item_degree": np.array(item_degree),
        "of_user": np.arange(len(item_degree)),
    }


def runs(num=40):
    """GTC finds what popular items are, for busy users; LightGCN nothing."""
    degree = np.arange(num) + 1
    items = np.concatenate([[0, 0], degree])
    better = run_of((degree > 20) * 1.0, items > 20, degree, items)
    worse = run_of(degree * 0.0, items < 0, degree, items)
    return {"tiktok": {"gtc": {0: better, 1: better}, "lightgcn": {0: worse, 1: worse}}}


def test_groups_are_about_equally_large_and_hold_everybody():
    degree = np.random.default_rng(0).geometric(0.2, 1000) - 1
    groups = list(bench.groups_of(degree))
    assert sum(inside.astype(int) for *_, inside in groups).tolist() == [1] * 1000
    assert groups[0][:2] == (0, 0)
    for (_, most, _), (least, _, _) in pairwise(groups):
        assert most < least
    assert max(inside.sum() for *_, inside in groups) < 400
    assert [g[:2] for g in bench.groups_of(np.array([3, 3, 3]))] == [(3, 3)]
    assert [g[:2] for g in bench.groups_of(np.zeros(3, dtype=int))] == [(0, 0)]


def test_gains_are_where_they_were_put():
    rows = bench.table(runs())
    users = [row for row in rows if row["group"] == "user"]
    items = [row for row in rows if row["group"] == "item"]
    assert sum(row["count"] for row in users) == 40 and sum(row["count"] for row in items) == 42
    assert (items[0]["least"], items[0]["most"], items[0]["count"]) == (0, 0, 2)
    for row in rows:
        gain = float(row["difference"])
        if row["most"] <= 20:
            assert gain == float(row["low"]) == float(row["high"]) == 0
        elif row["least"] > 20:
            assert gain == float(row["gtc"]) == 1
        else:
            assert float(row["low"]) <= gain <= float(row["high"])
        assert row["seeds"] == "0 1" and row["commit"] == "abc"


def test_the_interval_is_that_of_the_mean():
    difference = np.random.default_rng(0).normal(1.0, 2.0, 400)
    low, high = bench.interval(difference, np.arange(400))
    assert low == pytest.approx(difference.mean() - 1.96 * 2 / 20, abs=0.03)
    assert high == pytest.approx(difference.mean() + 1.96 * 2 / 20, abs=0.03)
    assert bench.interval(np.array([0.5]), np.array([3])) == (0.5, 0.5)
    # What is known four times over is known once.
    four = bench.interval(difference.repeat(4), np.arange(400).repeat(4))
    assert four == pytest.approx((low, high))


def test_the_picture_is_drawn_from_the_rows(tmp_path):
    write_rows(tmp_path / "rows.csv", bench.WHERE.header, bench.table(runs()))
    bench.draw(read_rows(tmp_path / "rows.csv"), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 5000
    with pytest.raises(ValueError, match="nothing to draw"):
        bench.draw([], tmp_path / "none.png")


def test_the_rows_and_the_picture_are_of_the_runs_in_the_table():
    rows, tests = bench.WHERE.rows(), read_rows(significance.TABLE)
    key = ("dataset", "baseline", "seeds", "commit")
    assert {tuple(r[k] for k in key) for r in rows} == {tuple(r[k] for k in key) for r in tests}
    for test in tests:  # all users of a set together have its Recall@20
        if (test["metric"], test["k"]) == ("recall", "20"):
            wanted = (test["dataset"], "user", test["baseline"])
            mine = [r for r in rows if (r["dataset"], r["group"], r["baseline"]) == wanted]
            total = sum(int(r["count"]) for r in mine)
            for column in ("gtc", "baseline_value", "difference"):
                mean = sum(int(r["count"]) * float(r[column]) for r in mine) / total
                assert mean == pytest.approx(float(test[column]), abs=2e-6)
    assert bench.PLOT.exists()
