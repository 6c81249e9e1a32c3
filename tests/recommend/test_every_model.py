"""A shop's own tables through all that a recommender does, with every model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from gtc_pyg.datasets import from_frames
from gtc_pyg.experiment import build_model
from gtc_pyg.lightning import fit
from gtc_pyg.models.registry import MODELS
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph

USERS, ITEMS = [f"u{row:02d}" for row in range(30)], [f"i{row:02d}" for row in range(24)]
ADDED, UNTOUCHED, LATE = ["j0", "j1"], ITEMS[-1], {"n1": ITEMS[1:3], "n2": [ITEMS[5]]}
RNG = np.random.default_rng(0)
IMAGE = pd.DataFrame(RNG.normal(size=(26, 6)), [*ITEMS, *ADDED], list("abcdef"))
TEXT = pd.DataFrame(RNG.normal(size=(20, 3)), ITEMS[:20], list("xyz"))
OPTIONS: dict[str, Any] = {"epochs": 1, "patience": 1, "progress": False}


@pytest.fixture(scope="module")
def shop() -> Any:
    pairs = np.argwhere(RNG.random((30, 23)) < 0.35)
    table = pd.DataFrame([(USERS[u], ITEMS[i]) for u, i in pairs], columns=["user", "item"])
    shown = pd.DataFrame({"item": ITEMS, "title": [f"Title {x}" for x in ITEMS], "year": range(24)})
    content = {"image": IMAGE.loc[ITEMS], "text": TEXT}
    return from_frames(table, shown, content, pre_transform=ItemKNNGraph(k=4))


@pytest.fixture(scope="module", params=MODELS)
def trained(request, shop, tmp_path_factory) -> Any:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("models")
    return fit(build_model(request.param, shop), shop, batch_size=64, out=out, **OPTIONS).model


@pytest.fixture
def grown(trained, shop) -> Recommender:
    """Users and, where the model reads content, items were added; one lacks its text."""
    recommender = Recommender(trained, shop)
    recommender.add_users(LATE)
    if trained.modalities:
        titles = pd.DataFrame({"title": ["New 1", "New 0"]}, ADDED[::-1])
        image = IMAGE.loc[ADDED[::-1], list("fedcba")]
        recommender.add_items(ADDED, {"image": image}, titles)
    return recommender


def score(recommender: Recommender, user: str, item: str) -> float:
    return recommender.recommend([user], exclude_seen=False, candidates=[item])["score"].item()


def test_reasons_add_up_to_the_scores_of_lists(grown: Recommender) -> None:
    items = [ITEMS[1], UNTOUCHED, *(ADDED if grown.model.modalities else [])]
    for user in (USERS[3], "n1"):
        for item in items:
            why, listed = grown.explain(user, item), score(grown, user, item)
            bias = why.sources.get("popularity", 0.0)
            by_past = why.own + why.past_items["value"].sum() + bias
            by_similar = why.itself + why.similar_items["value"].sum() + bias
            for found in (why.score, why.sources.sum(), by_past, by_similar):
                assert found == pytest.approx(listed, abs=1e-4)
        assert grown.plot_user(user, k=3, label="title").axes


def test_content_and_titles_come_to_the_items_added(grown: Recommender) -> None:
    if not grown.model.modalities:
        with pytest.raises(ValueError, match="reads no content"):
            grown.add_items(ADDED, {"image": IMAGE.loc[ADDED]})
        return
    expected = torch.tensor(IMAGE.loc[ADDED].to_numpy(), dtype=torch.float)
    assert torch.equal(grown.features["image"][-2:], expected)
    assert grown.features["has_text"][-2:].tolist() == [False, False]
    assert grown.describe(ADDED)["title"].tolist() == ["New 0", "New 1"]
    with pytest.raises(ValueError, match="must have the columns of training"):
        grown.add_items(
            ["j2"], {"image": IMAGE.iloc[:1].set_axis(["j2"]).rename(columns=str.upper)}
        )


def test_files_and_folders_hold_what_is_listed(grown: Recommender, tmp_path) -> None:
    wanted = grown.recommend(k=4)
    file = grown.write(tmp_path / "lists.parquet", k=4, progress=False)
    assert_frame_equal(pd.read_parquet(file), wanted, check_dtype=False)
    fresh = grown.fold_in(LATE, k=4)
    assert_frame_equal(grown.recommend(list(LATE), k=4), fresh, check_dtype=False, atol=1e-5)
    loaded = Recommender.load(grown.save(tmp_path / "m"))
    assert_frame_equal(loaded.recommend(k=4), wanted)
    assert_frame_equal(loaded.describe(), grown.describe())
    assert loaded.columns == grown.columns and loaded.columns["text"] == ("x", "y", "z")


def test_an_update_of_a_loaded_one_is_that_of_the_first(grown: Recommender, tmp_path) -> None:
    new = [*(ADDED if grown.model.modalities else ITEMS[2:4]), ITEMS[1]]
    more = {"n3": new, USERS[1]: new[:2], "n1": [ITEMS[9]]}
    loaded = Recommender.load(grown.save(tmp_path / "m"))
    updated = grown.update(more, out=tmp_path / "a", **OPTIONS)
    again = loaded.update(more, out=tmp_path / "b", **OPTIONS)
    assert_frame_equal(again.recommend(k=4), updated.recommend(k=4))
    assert set(updated.users.index) == {*USERS, *LATE, "n3"}
    assert set(updated.history("n3")["item"]) == set(new)
    assert updated.columns == grown.columns
    assert updated.describe(new)["title"].tolist() == grown.describe(new)["title"].tolist()
    listed = score(updated, "n3", ITEMS[7])
    assert updated.explain("n3", ITEMS[7]).score == pytest.approx(listed, abs=1e-4)
