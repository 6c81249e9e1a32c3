import json
from argparse import Namespace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

pytest.importorskip("lightning")


import significance as bench
from gtc_pyg.experiment import Settings
from harness import stats
from harness.data import DATASETS
from harness.per_user import PerUser
from harness.settings import to_json

SETTINGS = {"gtc": Settings(epochs=2), "lightgcn": Settings(epochs=2)}
RNG = np.random.default_rng(0)


def run_of(values, users=None, **more):
    """What is kept of a run whose metrics are all the same."""
    run = dict.fromkeys((f"{metric}@{k}" for metric, k in bench.METRICS), values)
    users = np.arange(len(values)) if users is None else users
    return {"settings": "{}", "rows": json.dumps([{"commit": "abc"}]), "users": users} | run | more


@pytest.fixture
def runs(dataset, tmp_path, monkeypatch):
    """A command of two models and two seeds on planted data, and what it trained."""
    trained, train = [], bench.train

    def counting(*args):
        trained.append((args[2], args[4]))
        return train(*args)

    monkeypatch.setattr(bench, "train", counting)
    monkeypatch.setitem(DATASETS, "tiktok", lambda root: dataset)
    monkeypatch.setattr(bench, "example_settings", lambda name: SETTINGS)
    places = {"root": tmp_path, "users": tmp_path / "users", "out": tmp_path / "rows.csv"}
    return lambda *seeds: Namespace(dataset="tiktok", models=None, seed=seeds, **places), trained


def test_a_repeated_command_trains_and_tells_nothing_twice(runs):
    parse, trained = runs
    bench.run(parse(0))
    bench.run(args := parse(0, 1))
    assert trained == [("gtc", 0), ("lightgcn", 0), ("gtc", 1), ("lightgcn", 1)]
    rows = bench.read_rows(args.out)
    keys = [tuple(row.values())[:7] for row in rows]
    assert len(keys) == len(set(keys)) == 4 * 24

    # A command that was stopped before it told: the rows come from what was kept.
    args.out.unlink()
    bench.run(args)
    assert len(trained) == 4 and bench.read_rows(args.out) == rows

    table = bench.table(bench.read_runs(args.users))
    for row in table:
        key = (row["metric"], str(row["k"]))
        own = {
            model: [
                float(r["value"])
                for r in rows
                if (r["metric"], r["k"]) == key and r["split"] == "test" and r["model"] == model
            ]
            for model in SETTINGS
        }
        assert float(row["gtc"]) == pytest.approx(np.mean(own["gtc"]), abs=2e-6)
        assert float(row["baseline_value"]) == pytest.approx(np.mean(own["lightgcn"]), abs=2e-6)
    path = args.out.with_name("table.csv")
    bench.write_rows(path, bench.HEADER, table)


def test_rows_and_settings_that_do_not_fit_are_refused(tmp_path):
    row = dict.fromkeys(bench.experiment.HEADER, "0") | {"value": "0.100000"}
    path, run = tmp_path / "rows.csv", {"rows": json.dumps([row])}
    bench.report_once(path, run)
    bench.report_once(path, {"rows": json.dumps([row | {"commit": "other"}])})
    with pytest.raises(ValueError, match="has other values of dataset 0, model 0"):
        bench.report_once(path, {"rows": json.dumps([row | {"value": "0.100100"}])})
    assert len(bench.read_rows(path)) == 1


def test_a_run_of_other_settings_is_refused(runs, monkeypatch):
    parse, trained = runs
    args = parse(0)
    values = np.ones(3)
    bench.save(args.users / "tiktok-gtc-0.npz", run_of(values, settings=to_json(Settings(lr=0.5))))
    with pytest.raises(ValueError, match="made with other settings"):
        bench.run(args)
    assert not trained and not args.out.exists()


def test_users_that_disagree_with_the_report_are_refused(dataset, monkeypatch):
    users = np.arange(3)
    wrong = PerUser({"recall@20": users + 1.0}, users, users, users, users, users > 0)
    monkeypatch.setattr(bench, "per_user", lambda *args: wrong)
    with pytest.raises(RuntimeError, match=r"recall@20 of the users is 2\.0 and"):
        bench.train("planted", dataset, "lightgcn", Settings(epochs=1), 0)


def test_holm_by_hand():
    # In order: .01 * 4, .02 * 3, then .03 * 2 = .06 and .04 * 1 raised to it.
    assert bench.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert bench.holm([0.9, 0.8, 0.005]) == pytest.approx([1.0, 1.0, 0.015])
    assert bench.holm([0.3]) == [0.3]


def test_a_planted_difference_is_found_and_none_is_not():
    base = RNG.random(2000)
    noise = RNG.normal(0, 0.2, 2000)
    found = bench.compare(base + noise + 0.03, base)
    assert found["p"] < 1e-6 and 0 < found["low"] < found["difference"] < found["high"]
    assert found["gain"] == pytest.approx(found["difference"] / base.mean())
    nothing = bench.compare(base + noise - noise.mean(), base)
    assert nothing["p"] > 0.05 and nothing["low"] < 0 < nothing["high"]
    swapped = bench.compare(base, base + noise + 0.03)
    assert swapped["p"] == pytest.approx(found["p"])
    assert swapped["difference"] == pytest.approx(-found["difference"])


def test_the_comparison_is_paired():
    # The users differ far more from each other than the models do.
    base = RNG.normal(0, 10, 500)
    assert bench.compare(base + 0.1 + RNG.normal(0, 0.3, 500), base)["p"] < 1e-6


def test_identical_models_do_not_differ():
    # As a mean of other seeds: equal up to rounding, which must not pass for a difference.
    base = RNG.random(50)
    parts = np.mean([base * 0.1, base * 0.7, base * 2.2], axis=0)
    for other in (base, parts):
        same = bench.compare(other, base)
        assert (same["p"], same["low"], same["high"], same["difference"]) == (1, 0, 0, 0)


def test_the_interval_covers_the_mean_as_often_as_it_says():
    mean, covered = 0.2, 0
    generator = np.random.default_rng(1)
    for _ in range(60):
        found = bench.compare(generator.exponential(mean, 300), np.zeros(300))
        covered += found["low"] <= mean <= found["high"]
    assert 51 <= covered <= 60


def test_the_detectable_gain_is_detected_with_the_power_it_names():
    deviation, users, generator = 0.3, 400, np.random.default_rng(2)
    gain = stats.detectable(generator.normal(0, deviation, 100_000)) * np.sqrt(100_000 / users)
    assert gain == pytest.approx((2.5758 + 0.8416) * deviation / np.sqrt(users), rel=0.01)
    draws = generator.normal(gain, deviation, (2000, users))
    p = ttest_1samp(draws, 0.0, axis=1).pvalue
    assert (p < 0.01).mean() == pytest.approx(0.8, abs=0.04)


def test_values_are_averaged_over_seeds_before_comparing_users():
    # Seeds that cancel each other leave no difference, and the row says so.
    base, shift = RNG.random(100), RNG.random(100)
    models = {
        "gtc": {0: run_of(base + shift), 1: run_of(base - shift)},
        "lightgcn": {0: run_of(base), 1: run_of(base)},
        "freedom": {0: run_of(base - 0.5), 1: run_of(base - 0.5 + shift / 9)},
    }
    rows = bench.table({"tiktok": models})
    assert [row["baseline"] for row in rows] == ["lightgcn"] * 4 + ["freedom"] * 4
    assert {row["p"] for row in rows[:4]} == {"1"}
    assert all(float(row["p_holm"]) < 0.01 for row in rows[4:])
    p = [float(row["p"]) for row in rows]
    assert float(rows[4]["p_holm"]) == pytest.approx(
        8 * min(p), rel=0.01, abs=0
    )  # of the whole table
    assert {row["seeds"] for row in rows} == {"0 1"} and {row["users"] for row in rows} == {100}
    assert set(rows[0]) == set(bench.HEADER)


@pytest.mark.parametrize(
    ("name", "run", "error"),
    [
        ("tiktok-lightgcn-1", {}, "models differ in seeds"),
        ("tiktok-lightgcn-0", {"users": np.arange(1, 6)}, "runs differ in users"),
        ("baby-lightgcn-0", {}, "expected gtc and baselines"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(tmp_path, name, run, error):
    for kept in ("tiktok-gtc-0", "tiktok-lightgcn-0"):
        bench.save(tmp_path / f"{kept}.npz", run_of(np.ones(5)))
    assert set(bench.read_runs(tmp_path)["tiktok"]) == {"gtc", "lightgcn"}
    bench.save(tmp_path / f"{name}.npz", run_of(np.ones(5), **run))
    with pytest.raises(ValueError, match=error):
        bench.read_runs(tmp_path)


def test_seeds_of_other_settings_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no runs"):
        bench.read_runs(tmp_path)
    for model in ("gtc", "lightgcn"):
        for seed in (0, 1):
            kept = run_of(np.ones(5), settings=f'{{"lr": {seed}}}' if model == "gtc" else "{}")
            bench.save(tmp_path / f"tiktok-{model}-{seed}.npz", kept)
    with pytest.raises(ValueError, match="runs of gtc differ in settings"):
        bench.read_runs(tmp_path)
