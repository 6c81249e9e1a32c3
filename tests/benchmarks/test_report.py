import statistics
from collections import Counter

import pytest

from harness import filled, read_rows
from harness.data import TITLES
from report import (
    COLUMNS,
    MODELS,
    README,
    ROWS,
    TESTS,
    gains,
    texts,
    values,
)
from where_it_helps import WHERE

FLOORS = {  # what the first release promises: mean test Recall@20 over the seeds
    "tiktok": {"lightgcn": 0.084, "freedom": 0.088, "gtc": 0.090},
    "lfm2k": {"lightgcn": 0.39, "freedom": 0.405, "gtc": 0.39},
    "baby": {"lightgcn": 0.0754, "freedom": 0.0985, "gtc": 0.090},
}


def test_readme_shows_the_committed_rows():
    readme = README.read_text()
    assert filled(readme, texts()) == readme


def prose() -> str:
    """The README with single spaces."""
    return " ".join(README.read_text().split())


def seeds(model, dataset, metric, k):
    wanted = {"dataset": dataset, "preset": "default", "split": "test", "metric": metric, "k": k}
    return list(values(read_rows(ROWS), model=model, **wanted).values())


def mean(*of):
    return statistics.fmean(seeds(*of))


def test_readme_says_by_how_much_gtc_leads():
    told = {}
    for name in TITLES:
        for metric, k in COLUMNS:
            means = {model: mean(model, name, metric, k) for model in MODELS}
            ranked = sorted(means, key=means.get, reverse=True)
            assert ranked[0] == "gtc", "GTC has the highest mean in every metric"
            if (metric, k) == ("ndcg", 5):
                key = {"dataset": name, "baseline": ranked[1], "metric": metric, "k": str(k)}
                told[name] = next(r for r in read_rows(TESTS) if key.items() <= r.items())
    gain = {name: f"{100 * float(row['gain']):.0f} %" for name, row in told.items()}
    p = {name: f"(p = {float(row['p_holm']):.1g})".replace("0.", ".") for name, row in told.items()}
    least = 100 * float(told["lfm2k"]["detectable"]) / float(told["lfm2k"]["baseline_value"])
    assert (
        f"the gain over the best baseline is {gain['tiktok']} on TikTok {p['tiktok']}, "
        f"{gain['baby']} on Baby, and {gain['lfm2k']} on LFM2k {p['lfm2k']}, where a gain below "
        f"about {least:.0f} % could hardly be told from chance" in prose()
    )
    assert float(told["baby"]["p_holm"]) < 0.01


def test_readme_names_the_gains_that_do_not_count():
    not_shown = {
        (row["dataset"], row["baseline"], row["metric"], row["k"])
        for row in read_rows(TESTS)
        if not (float(row["difference"]) > 0 and float(row["p_holm"]) < 0.01)
    }
    ours = {(name, "mgcn", metric, "5") for name in ("tiktok", "lfm2k") for metric, _ in COLUMNS}
    assert not_shown == ours | {("tiktok", "lightgcn", "recall", "5")}
    key = {"dataset": "tiktok", "baseline": "lightgcn", "metric": "recall", "k": "5"}
    (row,) = (row for row in read_rows(TESTS) if key.items() <= row.items())
    assert (
        "Recall@5 and NDCG@5 over MGCN on both TikTok and LFM2k, and on TikTok Recall@5 over "
        f"LightGCN (p = {row['p_holm'].removeprefix('0')})" in prose()
    )


def test_readme_names_the_items_that_gtc_finds_less_often():
    groups = [row for row in WHERE.rows() if row["group"] == "item"]
    fifth = max((r for r in groups if r["dataset"] == "lfm2k"), key=lambda r: int(r["most"]))[
        "most"
    ]
    (popular,) = (
        r for r in groups if (r["dataset"], r["most"], r["baseline"]) == ("lfm2k", fifth, "freedom")
    )
    assert f"{-100 * float(popular['difference']):.0f}" == "8"
    assert "fifth of LFM2k is found eight points less often than by FREEDOM" in prose()
    worse = Counter(
        (r["dataset"], int(r["least"]), int(r["most"]))
        for r in groups
        if float(r["difference"]) < 0
    )
    below_all = sorted(group for group, number in worse.items() if number == len(MODELS) - 1)
    assert below_all == [("tiktok", 13, 25), ("tiktok", 26, 53)]
    assert "items with 13 to 53 interactions on TikTok less often than by any" in prose()


def test_readme_says_who_is_above_what_is_published():
    for model in ("lightgcn", "mgcn"):
        assert mean(model, "baby", "recall", 20) > {"lightgcn": 0.0754, "mgcn": 0.0964}[model]
    runs = seeds("freedom", "baby", "recall", 20)
    assert abs(statistics.fmean(runs) - 0.0992) < statistics.stdev(runs)
    assert "in Recall@20 (.0754 and .0964)" in prose()
    assert "FREEDOM, with neither, is level with its own (.0992" in prose()
    assert mean("gtc", "baby", "recall", 20) > 0.1052
    assert mean("gtc", "baby", "ndcg", 20) > 0.0460
    assert mean("gtc", "tiktok", "recall", 20) < 0.1139
    runs = seeds("gtc", "tiktok", "ndcg", 20)
    assert 0 < statistics.fmean(runs) - 0.0492 < statistics.stdev(runs)
    assert "GTC is above all of them on Baby; on TikTok in NDCG@20 alone" in prose()


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
        in prose()
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
    with pytest.raises(ValueError, match="seed 0 stands twice"):
        values([row, row], model="gtc")
