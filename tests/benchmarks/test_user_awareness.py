from __future__ import annotations

from pathlib import Path

import torch

from user_awareness import AWARENESS, PAGE, auc, measure, table, train


def values(condition: str, measure: str, users: str = "preferred") -> list[float]:
    wanted = {"condition": condition, "measure": measure, "users": users}
    found = [row for row in AWARENESS.rows() if all(row[key] == wanted[key] for key in wanted)]
    assert {row["seed"] for row in found} == set("01234")
    return [float(row["auc"]) for row in found]


def test_committed_rows_find_the_planted_block_and_modality() -> None:
    assert min(values("user", "relevance, fixed gates")) >= 0.9
    assert min(values("user", "relevance, all of the input")) >= 0.9
    both, held = (
        values("user", f"relevance, {which}", "all")
        for which in ("all of the input", "fixed gates")
    )
    figures = [f"{x:.3f}"[1:] for x in (sum(both) / 10, min(both), sum(held) / 10)]
    said = "All of the input has {} on average over both modalities and {} on the worst seed, fixed"
    assert f"{said.format(*figures)} gates {figures[2]}." in " ".join(PAGE.read_text().split())
    assert min(values("user", "share, filter's", "all")) >= 0.9
    weights = values("user", "weights of the modalities", "all")
    assert f"alone they have {sum(weights) / 5:.3f}.".replace("0.", ".") in PAGE.read_text()


def test_committed_controls_are_guesses() -> None:
    for users in ("preferred", "all"):
        shuffled = values("user", "relevance, another user's gate", users)
        assert all(abs(value - 0.5) <= 0.03 for value in shuffled)
        assert all(value == 0.5 for value in values("item", "relevance, fixed gates", users))
    shuffled = values("user", "share, another user's filter", "all")
    assert all(abs(value - 0.5) <= 0.03 for value in shuffled)
    assert all(value == 0.5 for value in values("item", "share, filter's", "all"))


def test_erasing_a_modality_is_shown_not_to_measure_the_filter() -> None:
    shares = values("item", "share, erased", "all")
    assert sum(shares) / len(shares) > 0.8
    assert "**Erasing a modality for everybody measures something else**" in PAGE.read_text()


def test_the_page_shows_the_committed_rows() -> None:
    assert table(AWARENESS.rows()) in PAGE.read_text()


def test_auc_by_hand() -> None:
    # Divided by the columns' means: [[4/3, 2/3], [2/3, 4/3]]; right entries 4/3 and 2/3.
    value, truth = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.tensor([0, 0])
    assert auc(value, truth) == 0.5
    assert auc(value, torch.tensor([0, 1])) == 1.0
    assert auc(value, torch.tensor([1, 0])) == 0.0
    assert auc(torch.ones(2, 2), truth) == 0.5


def test_a_short_training_already_finds_more_than_a_guess(tmp_path: Path) -> None:
    model, dataset, inputs, _ = train("user", seed=0, size=(300, 150), epochs=12, out=tmp_path)
    found = {row[:3]: row[3] for row in measure(model, dataset, inputs, permutations=5)}
    own, other = (
        [found[f"relevance, {which}", name, "preferred"] for name in dataset.modalities]
        for which in ("all of the input", "another user's gate")
    )
    assert min(own) > 0.75
    assert max(abs(value - 0.5) for value in other) < 0.1
