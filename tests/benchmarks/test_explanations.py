from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from explanations import EXPLANATIONS, PAGE, PLOT, SHOWN, best_new, measure, table, values
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GTC
from user_awareness import train


def test_committed_rows_name_the_modality_of_nine_users_in_ten() -> None:
    rows = EXPLANATIONS.rows()
    assert {row["seed"] for row in rows} == set("01234567")
    for name in ("modality, recommended", "modality, own items"):
        assert sum(values(rows, "user", name)) / 8 >= 0.9
    missed = [x for x in values(rows, "user", "modality, recommended") if x < 0.9]
    said = f"reached on average and on {8 - len(missed)} of the eight seeds"
    assert said in " ".join(PAGE.read_text().split())
    assert all(abs(value - 0.5) < 0.05 for value in values(rows, "user", "another user"))
    for condition in ("user", "item"):
        assert max(values(rows, condition, "largest error")) <= 1e-5


def test_the_page_shows_the_committed_rows() -> None:
    assert table(EXPLANATIONS.rows()) in PAGE.read_text()
    assert PLOT.exists()


def test_a_short_training_already_names_more_than_a_guess(tmp_path: Path) -> None:
    model, dataset, inputs, _ = train("user", seed=0, size=(200, 100), epochs=20, out=tmp_path)
    found = measure(model, dataset, inputs, k=5)
    assert found["modality, recommended"] > 0.7 > found["most frequent"] + 0.1
    assert found["modality, own items"] > 0.7
    assert abs(found["another user"] - 0.5) < 0.1
    assert found["largest error"] <= 1e-5


def test_the_best_new_items_are_none_of_a_users(planted: Callable) -> None:
    graph = planted()
    inputs = GraphInputs(graph.features, graph.edge_index_dict, graph.edge_weight_dict)
    model = GTC(60, 40, graph.in_channels, heads=[])
    score, best, own = best_new(model, inputs, 3)
    user, item = graph.edge_index_dict["user", "rates", "item"]
    for u in range(60):
        assert own[u].tolist() == sorted(item[user == u].tolist())
        others = [i for i in range(40) if i not in own[u].tolist()]
        assert best[u].tolist() == sorted(others, key=lambda i: -float(score[u, i]))[:3]


def test_the_table_by_hand() -> None:
    rows = [
        {"condition": c, "measure": m, "value": v}
        for _, c, m in SHOWN
        for v in ("0.5", "0.7", "0.9")
    ]
    assert values(rows, *SHOWN[0][1:]) == [0.5, 0.7, 0.9]
    assert table(rows).splitlines()[2].endswith("| 0.700 (0.500 to 0.900) |")
