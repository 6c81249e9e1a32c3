from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gtc_pyg.explain import Explainer, plot_user
from tests.explain.scores import gtc_of

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def explained(planted: Callable, user: int = 3) -> tuple[Explainer, object]:
    graph = planted()
    model = gtc_of(graph, heads=True)
    explainer = Explainer(model, graph.features, graph.edge_index_dict, graph.edge_weight_dict)
    return explainer, explainer.user(user)


def test_the_bars_of_an_item_add_up_to_its_score(planted: Callable) -> None:
    _, user = explained(planted)
    items = [5, 1, 30]
    _, middle, right = plot_user(user, items).axes
    for row, item in enumerate(items):
        bars = [b.get_width() for b in middle.patches if abs(b.get_y() + 0.4 - row) < 0.01]
        assert len(bars) == 8  # for and against, of three sources and the bias
        assert sum(bars) == pytest.approx(float(user.score_parts(item).score), abs=1e-5)
    assert [t.get_text() for t in middle.get_yticklabels()] == ["5", "1", "30"]
    assert sum(b.get_width() for b in right.patches) == pytest.approx(1)
    labels = [t.get_text() for t in right.get_yticklabels()]
    assert labels[0] == "interactions" and labels[1].startswith("image\nweight ")


def test_the_history_is_what_speaks_most_on_average(planted: Callable) -> None:
    _, user = explained(planted)
    left = plot_user(user, [5, 30], label=lambda row: f"<{row}>", num_past=3).axes[0]
    mean = torch.zeros(40)
    for item in (5, 30):
        parts = user.score_parts(item)
        mean[parts.past_items] += parts.past.sum(dim=1) / 2
    best = user.items[mean[user.items].argsort(descending=True)[:3]].tolist()
    labels = [t.get_text() for t in left.get_yticklabels()]
    assert labels == [*(f"<{item}>" for item in best), "(own ID)"]
    assert left.get_title() == f"History: 3 of {user.items.numel()} items"
    bars = [b.get_width() for b in left.patches if abs(b.get_y() + 0.4) < 0.01]
    assert sum(bars) == pytest.approx(float(mean[best[0]]), abs=1e-5)


def test_items_that_are_no_rows_need_names(planted: Callable, tmp_path: Path) -> None:
    explainer, _ = explained(planted)
    user = explainer.user(torch.tensor([3, 9]))
    added = torch.randn(14)
    figure = plot_user(user, [4, added], names=["four", "a name of more than thirty letters"])
    labels = [t.get_text() for t in figure.axes[1].get_yticklabels()]
    assert labels == ["four", "a name of more than thirty …"]
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match="'names' must be given where 'items' are not all rows"):
        plot_user(user, [4, added])
    with pytest.raises(ValueError, match=r"'names' must be 2, as many as 'items' \(got 1\)"):
        plot_user(user, [4, 5], names=["four"])
    with pytest.raises(ValueError, match="'items' must hold at least one"):
        plot_user(user, [])


def test_a_user_without_items_is_drawn(planted: Callable) -> None:
    explainer, _ = explained(planted)
    left = plot_user(explainer.user(torch.empty(0, dtype=torch.long)), [1]).axes[0]
    assert [t.get_text() for t in left.get_yticklabels()] == ["(own ID)"]
