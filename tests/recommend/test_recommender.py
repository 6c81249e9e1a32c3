import copy

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import GTC, LightGCN
from gtc_pyg.recommend import Recommender
from tests.recommend.parts import content_of


def test_folded_in_user_gets_the_same_list_alone_and_added(recommender, dataset):
    items = dataset.item_ids[[3, 9, 27]]
    one = recommender.fold_in(items, k=5)
    assert list(one.columns) == ["rank", "item", "score"] and not set(one["item"]) & set(items)
    several = recommender.fold_in({"x": items, "y": [items[0]]}, k=5)
    assert several["user"].tolist() == ["x"] * 5 + ["y"] * 5
    assert_frame_equal(several[several["user"] == "x"].drop(columns="user"), one)
    table = pd.DataFrame({"user": ["x"] * 3 + ["y"], "item": [*items, items[0]]})
    assert_frame_equal(recommender.fold_in(table, k=5), several)
    recommender.add_users(several.assign(item=[*items, *items[:2], *items, *items[:2]]))
    assert recommender.num_users == 62
    remembered = recommender.recommend("x", k=5)
    assert_frame_equal(remembered.drop(columns="user"), one)


def test_who_has_no_items_gets_what_everybody_likes(recommender):
    lists = recommender.fold_in({"anna": [1000], "ben": []}, k=3)
    assert lists["user"].tolist() == ["anna"] * 3 + ["ben"] * 3
    recommender.add_users({"ben": []})
    assert recommender.recommend("ben", k=3)["item"].tolist() == lists["item"].tolist()[3:]


def test_folding_in_changes_nothing(recommender):
    before = recommender.recommend(k=3)
    recommender.fold_in(recommender.items.index[:4])
    assert recommender.num_users == 60
    assert_frame_equal(recommender.recommend(k=3), before)


def test_the_model_given_is_not_changed(model, dataset):
    model.train()
    before = copy.deepcopy(model.state_dict())
    recommender = Recommender(model, dataset)
    recommender.model.user_emb.weight.data.zero_()
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.explain("u01", [1000, 997]), r"one item must be given \(got 2\)"),
        (lambda r: r.fold_in([7]), r"unknown item 7"),
        (lambda r: r.add_users({"u01": [1000]}), r"user 'u01' is known already"),
        (lambda r: r.add_users({17: [1000]}), r"user ids must be strings .*got 17, integers"),
        (
            lambda r: r.add_users({"n": [1000], 5: [1000]}),
            r"user ids: ids of mixed types, such as 'n' and 5",
        ),
        (
            lambda r: r.fold_in([1000], exclude={"u01": [997]}),
            r"item ids: one id or several are expected",
        ),
        (
            lambda r: r.explain(item=1000, interactions={"u01": [997]}),
            r"item ids: one id or several",
        ),
        (lambda r: r.add_users([1000]), r"'interactions' must be a table .*got list"),
    ],
)
def test_what_cannot_be_answered_says_what_to_do(recommender, call, message):
    with pytest.raises(ValueError, match=message):
        call(recommender)


def test_a_model_of_other_sizes_is_refused(dataset):
    with pytest.raises(ValueError, match=r"made for 61 users, 'dataset' has 60"):
        Recommender(LightGCN(61, 40), dataset)
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    with pytest.raises(ValueError, match=r"made for 41 items, 'dataset' has 40"):
        Recommender(GTC(60, 41, widths), dataset)


def test_an_added_item_ranks_by_its_content(recommender, model, dataset):
    with torch.no_grad():
        inputs = GraphInputs.from_data(dataset[0])
        embedder = (
            copy.deepcopy(model)
            .eval()
            .item_embedder(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
        )
    expected = recommender.user_emb @ embedder(content_of(dataset, [5, 6])).t()
    recommender.add_items([7, 8], content_of(dataset, [5, 6]), pd.DataFrame({"title": ["A", "B"]}))
    table = recommender.recommend(k=2, candidates=[7, 8]).set_index(["user", "item"])["score"]
    for column, item in enumerate((7, 8)):
        found = torch.tensor([table[user, item] for user in dataset.user_ids])
        assert torch.allclose(found.float(), expected[:, column], atol=1e-5)
    assert recommender.describe([7])["title"].item() == "A"
    assert recommender.describe([7])["kind"].isna().item()
    assert recommender.num_items == 42
    assert 7 in recommender.recommend("u01", k=42)["item"].tolist()
    assert len(recommender.similar_items(8, k=50)) == 41
    history = recommender.fold_in([7, 1000], k=50)["item"]
    assert 7 not in history.tolist() and len(history) == 40


def test_no_items_are_no_change(recommender, dataset):
    recommender.add_items([], content_of(dataset, []))
    assert recommender.num_items == 40 and recommender.item_emb.size(0) == 40


@pytest.mark.parametrize(
    ("ids", "content", "message"),
    [
        ([1000], {"image": torch.zeros(1, 32)}, r"item 1000 is known already"),
        (["x"], {"image": torch.zeros(1, 32)}, r"item ids must be integers .*got 'x'"),
        ([7, 7], {"image": torch.zeros(2, 32)}, r"item ids must be unique \(got 7 twice\)"),
    ],
)
def test_items_that_do_not_fit_are_refused_and_change_nothing(recommender, ids, content, message):
    with pytest.raises(ValueError, match=message):
        recommender.add_items(ids, content)
    assert recommender.num_items == 40 and recommender.item_emb.size(0) == 40


def test_a_model_without_content_takes_no_new_items(dataset):
    with pytest.raises(ValueError, match=r"LightGCN reads no content"):
        Recommender(LightGCN(60, 40), dataset).add_items([7], content_of(dataset, [5]))


def test_items_nobody_touched_in_training_rank_by_their_content(model, dataset):
    lonely = Named60(dataset, without=3)
    inputs = GraphInputs.from_data(lonely[0])
    with torch.no_grad():
        frozen = copy.deepcopy(model).eval()
        graph = inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict
        of_others = frozen(*graph)[1]
        of_item = frozen.item_embedder(*graph).replace(of_others)[3]
    assert not torch.allclose(of_item, of_others[3], atol=1e-2)
    found = Recommender(model, lonely).item_emb
    assert torch.allclose(found[3], of_item, atol=1e-6)
    warm = torch.arange(40) != 3
    assert torch.allclose(found[warm], of_others[warm], atol=1e-6)


class Named60:
    """A dataset whose training lacks all interactions of one item."""

    def __init__(self, dataset, without):
        self.dataset, self.without = dataset, without

    def __getattr__(self, name):
        return getattr(self.dataset, name)

    def _view(self, split):
        data = copy.copy(self.dataset.view(split))
        for key, row in ((("user", "rates", "item"), 1), (("item", "rev_rates", "user"), 0)):
            edge_index = data[key].edge_index
            data[key].edge_index = edge_index[:, edge_index[row] != self.without]
        return data

    def __getitem__(self, index):
        return self._view("train")

    view = _view
