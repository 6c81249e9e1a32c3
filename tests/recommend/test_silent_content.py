"""Content that says nothing: trained with, explained and drawn, and it is said."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import from_frames
from gtc_pyg.experiment import build_model
from gtc_pyg.explain import filter_relevance, filter_share, score_share
from gtc_pyg.lightning import fit
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph

NUM_USERS, NUM_ITEMS = 14, 16
IDS = [f"i{row}" for row in range(NUM_ITEMS)]
SILENT = {
    "zeros": lambda width: pd.DataFrame(np.zeros((NUM_ITEMS, width)), index=IDS),
    "constant": lambda width: pd.DataFrame(np.full((NUM_ITEMS, width), 0.7), index=IDS),
    "large": lambda width: pd.DataFrame(np.full((NUM_ITEMS, width), 1e6), index=IDS),
    "one item": lambda width: pd.DataFrame(np.ones((1, width)), index=IDS[3:4]),
    "one item nobody touched": lambda width: pd.DataFrame(np.ones((1, width)), index=IDS[-1:]),
}


def dataset_of(content: pd.DataFrame):
    rng = np.random.default_rng(0)
    touched = rng.random((NUM_USERS, NUM_ITEMS - 1)) < 0.4
    pairs = [(f"u{user}", IDS[item]) for user, item in np.argwhere(touched)]
    table = pd.DataFrame(pairs, columns=["user", "item"])
    features = {"silent": content, "told": pd.DataFrame(rng.normal(size=(16, 3)), index=IDS)}
    items = pd.DataFrame({"item": IDS})
    return from_frames(table, items, features, transform=ItemKNNGraph(k=4))


def trained(name: str, content: pd.DataFrame, out) -> Recommender:
    data = dataset_of(content)
    torch.manual_seed(0)
    model = build_model(name, data)
    with pytest.warns(UserWarning, match="content 'silent' is the same for every item that has it"):
        result = fit(model, data, epochs=1, batch_size=32, progress=False, out=out)
    assert all(np.isfinite(list(row.values())).all() for row in result.history)
    return Recommender(result.model, data)


def check_finite(*tables: pd.DataFrame | pd.Series | float) -> None:
    for table in tables:
        numbers = pd.DataFrame(table).select_dtypes("number") if np.ndim(table) else table
        assert np.isfinite(np.asarray(numbers, dtype=float)).all()


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("kind", SILENT)
def test_gtc_trains_explains_and_draws(kind: str, width: int, tmp_path) -> None:
    r = trained("gtc", SILENT[kind](width), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for item in ("i1", "i3", IDS[-1]):
            why = r.explain("u1", item)
            tables = (why.sources, why.past_items, why.similar_items, why.directions)
            check_finite(why.score, why.own, why.itself, *tables)
            assert "silent" not in set(why.directions["modality"])
        found = r.explainer.user(1).directions("silent")
        assert all(bool(part.isfinite().all()) for part in found)
        assert len(found.kept) == len(found.dropped) == 0 and found.usual.sum() == 0
        features, edges, weights = r.arguments
        for share in (filter_share, score_share):
            of = share(r.model, features, edges, "silent", edge_weight_dict=weights)
            assert bool(of.isfinite().all())
        assert bool(filter_relevance(r.model, features, edges, "silent").isfinite().all())
        for figure in (r.plot_user("u1"), r.plot_user(interactions=["i1"])):
            ticks = [text.get_text() for text in figure.axes[2].get_yticklabels()]
            assert ticks[1] == "silent\nsays nothing" and ticks[2].startswith("told\nweight ")
            figure.canvas.draw()
        r.add_items(["new"], {"silent": torch.zeros(1, width), "told": torch.ones(1, 3)})
        check_finite(r.recommend(k=17), r.explain("u1", "new").sources)


@pytest.mark.parametrize("kind", ["zeros", "constant", "one item"])
@pytest.mark.parametrize("name", ["freedom", "mgcn"])
def test_baselines_train_and_rank(name: str, kind: str, tmp_path) -> None:
    r = trained(name, SILENT[kind](2), tmp_path)
    r.add_items(["new"], {"silent": torch.zeros(1, 2), "told": torch.ones(1, 3)})
    check_finite(r.recommend(k=17), r.fold_in(["i1"], k=5), r.similar_items("new"))
    check_finite(r.explain("u1", "i1").sources)


def test_telling_content_is_not_called_silent(tmp_path) -> None:
    data = dataset_of(pd.DataFrame(np.eye(NUM_ITEMS)[:, :1], index=IDS))
    model = build_model("gtc", data)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*same for every item")
        result = fit(model, data, epochs=1, batch_size=32, progress=False, out=tmp_path)
    r = Recommender(result.model, data)
    assert r.inputs.silent() == []
    ticks = r.plot_user("u1").axes[2].get_yticklabels()
    assert ticks[1].get_text().startswith("silent\nweight ")
