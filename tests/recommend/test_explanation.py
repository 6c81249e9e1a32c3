import json

import pandas as pd
import pytest
import torch

from gtc_pyg.models import FREEDOM, MGCN, GraphRecommender, LightGCN, SpectralFilter
from gtc_pyg.recommend import Recommender, explanation


class Plain(GraphRecommender):
    """A model of one's own that says nothing of its components."""

    def embed(self, features, graph):
        return self.user_emb.weight, self.item_emb.weight


def adds_up(why, score):
    bias = why.sources.get("popularity", 0.0)
    assert why.score == pytest.approx(score, abs=1e-5)
    assert why.sources.sum() == pytest.approx(score, abs=1e-5)
    assert why.own + why.past_items["value"].sum() + bias == pytest.approx(score, abs=1e-5)
    assert why.itself + why.similar_items["value"].sum() + bias == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("kind", [None, LightGCN, FREEDOM, MGCN, SpectralFilter])
def test_parts_add_up_to_the_score_of_the_list(recommender, dataset, kind):
    if kind is not None:
        reads = kind in (FREEDOM, MGCN)
        widths = [{k: x.size(1) for k, x in dataset.features.items()}] if reads else []
        recommender = Recommender(kind(60, 40, *widths), dataset)
    for row in recommender.recommend(["u03", "u17"], k=3).itertuples():
        why = recommender.explain(row.user, row.item)
        adds_up(why, row.score)
        assert why.item == row.item


def test_past_items_are_those_of_training_with_their_columns(recommender, dataset):
    why = recommender.explain("u03", 1000)
    user, item = dataset[0]["user", "rates", "item"].edge_index
    assert set(why.past_items["item"]) == set(dataset.item_ids[item[user == 3].numpy()])
    assert list(why.past_items.columns) == ["item", "value", "title", "kind"]
    assert why.past_items["value"].is_monotonic_decreasing
    titles = dataset.items["title"][dataset.item_ids.get_indexer(why.past_items["item"])]
    assert why.past_items["title"].tolist() == titles.tolist()


def test_users_and_items_that_came_later_are_explained(recommender, dataset):
    mine = [1000, 997, 994]
    score = recommender.fold_in(mine, candidates=[991])["score"].item()
    why = recommender.explain(item=991, interactions=mine)
    adds_up(why, score)
    assert set(why.past_items["item"]) == set(mine)
    recommender.add_users({"new": mine})
    adds_up(recommender.explain("new", 991), score)
    recommender.add_items([7], {name: x[:1] for name, x in dataset.features.items()})
    score = recommender.recommend("u03", candidates=[7])["score"].item()
    why = recommender.explain("u03", 7)
    adds_up(why, score)
    assert why.similar_items.empty


def test_directions_are_shown_by_the_items_at_their_ends(recommender, dataset):
    why = recommender.explain("u03", 1000, k=1)
    assert list(why.directions["modality"].unique()) == ["image", "text"]
    explained = explanation._explained(recommender, "u03", None)
    x = dataset.features["image"]
    found = ((x - x.mean(0)) / x.std(0)) @ explained.directions("image", 1).kept[0]
    order = found.argsort(descending=True)
    row = why.directions[why.directions["kind"] == "kept"].iloc[0]
    assert row["high"] == dataset.item_ids[order[:3].numpy()].tolist()
    assert row["low"] == dataset.item_ids[order.flip(0)[:3].numpy()].tolist()


def test_it_can_be_read_and_sent(recommender):
    why = recommender.explain("u03", 1000)
    plain = json.loads(json.dumps(why.to_dict(), allow_nan=False))
    assert plain["item"] == 1000 and plain["sources"].keys() == set(why.sources.index)
    assert plain["past_items"][0]["title"] == why.past_items["title"].iloc[0]
    assert str(why).startswith("1000 scores") and "past items: " in str(why)


def test_a_picture_of_a_user(recommender, tmp_path):
    for options in ({"user": "u03", "label": "title"}, {"interactions": [1000, 997]}):
        figure = recommender.plot_user(k=4, **options)
        figure.savefig(tmp_path / "why.png")
        assert (tmp_path / "why.png").stat().st_size > 10_000
    with pytest.raises(ValueError, match=r"'label' must be one of \['item', 'title', 'kind'\]"):
        recommender.plot_user("u03", label="brand")


def test_what_cannot_be_explained_says_so(recommender, dataset):
    with pytest.raises(ValueError, match="either 'user' or 'interactions'"):
        recommender.explain(item=1000)
    with pytest.raises(ValueError, match="either 'user' or 'interactions'"):
        recommender.explain("u03", 1000, interactions=[997])
    with pytest.raises(ValueError, match="unknown item 7"):
        recommender.explain("u03", 7)
    plain = Recommender(Plain(60, 40), dataset)
    assert len(plain.recommend("u03", k=3)) == 3
    for call in (lambda: plain.explain("u03", 1000), lambda: plain.plot_user("u03")):
        with pytest.raises(TypeError, match="Plain does not say what its scores are sums of"):
            call()


def test_only_newcomers_cost_an_embedder_and_share_it(recommender, monkeypatch):
    made, make = [], recommender.model.user_embedder
    monkeypatch.setattr(recommender.model, "user_embedder", lambda *x: made.append(1) or make(*x))
    recommender.explain("u03", 1000)
    assert made == []
    recommender.explain(item=991, interactions=[1000, 997])
    recommender.fold_in([1000, 997])
    assert made == [1]


def test_explaining_changes_nothing(recommender):
    before = recommender.recommend(k=3)
    recommender.explain("u03", 1000)
    pd.testing.assert_frame_equal(recommender.recommend(k=3), before)
    assert torch.is_grad_enabled()


def test_an_item_without_a_title_is_shown_by_its_id(recommender, monkeypatch):
    table = recommender.describe().assign(title=float("nan"))
    monkeypatch.setattr(recommender, "describe", lambda: table)
    figure = recommender.plot_user("u03", k=3, label="title")
    shown = [label.get_text() for axis in figure.axes for label in axis.get_yticklabels()]
    assert set(recommender.recommend("u03", k=3)["item"].astype(str)) <= set(shown)
