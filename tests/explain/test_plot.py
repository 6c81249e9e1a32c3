from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


SPECIAL = st.text(st.sampled_from("$^_\\\\{}%#&~<>ab é\n"), max_size=12)


@given(st.lists(SPECIAL, min_size=3, max_size=3))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_names_and_titles_are_literal_text(planted: Callable, names: list[str]) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    _, user = explained(planted)
    with matplotlib.rc_context({"text.usetex": False, "text.parse_math": True}):
        figure = plot_user(user, [5, 1], names.__getitem__, names[:2], names[2], num_past=0)
        figure.canvas.draw()
    titles = [figure._suptitle] if names[2] else []
    drawn = [*figure.axes[1].get_yticklabels(), *titles]
    assert [text.get_text() for text in drawn] == [*names[:2], *[t for t in names[2:] if t]]
    assert not any(text.get_parse_math() or text.get_usetex() for text in drawn)


@pytest.mark.parametrize("name", ["_image", "a_b_c", "größe"])
def test_every_modality_is_in_the_legend_by_its_name(planted: Callable, name: str) -> None:
    graph = planted()
    graph.in_channels = {name: graph.in_channels["image"]}
    features = {name: graph.features["image"]}
    model = gtc_of(graph)
    user = Explainer(model, features, graph.edge_index_dict, graph.edge_weight_dict).user(3)
    figure = plot_user(user, [5, 1], title="$x^")
    figure.canvas.draw()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["score", "interactions", name]
    assert len(legend.legend_handles) == 3
    assert not any(text.get_parse_math() for text in legend.get_texts())
