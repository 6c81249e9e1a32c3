from pathlib import Path

import pytest
import torch

from harness import filled
from harness.workers import in_fresh_process
from ranking import (
    PAGE,
    RANKING,
    added_mib,
    draw,
    main,
    measure,
    texts,
)

SMALL = {"items": 3000, "users": 50, "dim": 8, "k": 4, "threads": 1, "seed": 0, "repeats": 1}


def test_the_page_shows_the_committed_rows():
    page = PAGE.read_text()
    assert filled(page, texts(RANKING.rows())) == page


def test_a_page_without_the_marks_is_refused():
    with pytest.raises(ValueError, match="lacks '<!-- ranking -->'"):
        filled("# Ranking", texts(RANKING.rows()))


def test_committed_rows_reach_their_targets():
    rows = RANKING.rows()
    assert {int(row["items"]) for row in rows} >= {10**4, 10**5, 10**6}
    for row in rows:
        assert all(row.values()), row
        assert float(row["ratio"]) <= 1.5, row
        assert float(row["metrics_share"]) <= 0.10, row
        assert float(row["added_mib"]) <= 64, row


def test_ratios_are_those_of_the_columns():
    for row in RANKING.rows():
        ours = float(row["ours_s"])
        floor = float(row["product_s"]) + float(row["topk_s"])
        assert float(row["ratio"]) == pytest.approx(ours / floor, rel=0.2)
        assert float(row["metrics_share"]) == pytest.approx(float(row["metrics_s"]) / ours, rel=0.3)
        assert float(row["users_per_s"]) == pytest.approx(int(row["users"]) / ours, rel=0.01)


def test_drawn_interactions_are_disjoint_and_as_on_tiktok():
    user_emb, item_emb, labels, seen = draw(10_000, 20_000, 8, seed=0)
    assert user_emb.shape == (20_000, 8) and item_emb.shape == (10_000, 8)
    both = torch.cat([labels, seen], dim=1)
    assert both.unique(dim=1).size(1) == both.size(1)
    assert labels[0].tolist() == list(range(20_000))
    degree = seen[0].bincount(minlength=20_000)
    assert degree.double().mean() == pytest.approx(6.4, rel=0.2)
    assert degree.min() == 1 and degree.median() == 2 and 500 < degree.max() <= 603


def test_a_fresh_process_measures_all_columns():
    row = in_fresh_process("ranking", "measure", **SMALL)
    numbers = [float(row[name]) for name in row if name not in ("versions", "faiss_s")]
    assert min(numbers) >= 0 and float(row["ratio"]) > 0
    assert float(row["users_per_s"]) == pytest.approx(50 / float(row["ours_s"]), rel=0.1)


def test_memory_is_far_below_that_of_all_scores():
    arguments = draw(100_000, 300, 8, seed=0)  # 114 MiB of scores
    assert added_mib(*arguments, k=4) < 50


def test_what_is_there_is_not_run_again(monkeypatch, tmp_path: Path):
    out = tmp_path / "rows.csv"
    monkeypatch.setattr("ranking.in_fresh_process", lambda *names, **cell: measure(**cell))
    options = ["--users", "50", "--dim", "8", "--k", "4", "--threads", "1", "--repeats", "1"]
    threads = torch.get_num_threads()
    for items in (["600"], ["600", "700"]):
        main(["--items", *items, *options, "--out", str(out)])
    torch.set_num_threads(threads)
    rows = RANKING.rows(out)
    assert [row["items"] for row in rows] == ["600", "700"]
    assert all(row["commit"] and row["versions"] and row["seed"] == "0" for row in rows)
