import copy

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal, assert_series_equal

from gtc_pyg.evaluation import evaluate
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import LightGCN
from gtc_pyg.recommend import Recommender
from gtc_pyg.recommend import lists as module
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.lists import Lists
from tests.recommend.parts import content_of, edges


def scores_of(model, dataset):
    inputs = GraphInputs.from_data(dataset[0])
    with torch.no_grad():
        user_emb, item_emb = copy.deepcopy(model).eval()(
            inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict
        )
    return user_emb.double() @ item_emb.double().t()


def reference(scores, users, k, forbidden, only=None):
    """Lists by a loop over users and a full sort, on rows."""
    rows = []
    for user in users:
        items = list(range(scores.size(1)) if only is None else only)
        items = [i for i in items if (user, i) not in forbidden]
        items.sort(key=lambda i: (-float(scores[user, i]), i))
        rows += [(user, rank, i) for rank, i in enumerate(items[:k], start=1)]
    return rows


def as_rows(table, dataset):
    users, items = (
        ids.get_indexer(table[c])
        for ids, c in ((dataset.user_ids, "user"), (dataset.item_ids, "item"))
    )
    return list(zip(users.tolist(), table["rank"].tolist(), items.tolist(), strict=True))


def test_lists_are_those_of_a_full_sort(recommender, model, dataset):
    scores = scores_of(model, dataset)
    seen = set(map(tuple, edges(dataset, "train", "val", "test").t().tolist()))
    table = recommender.recommend(k=7)
    assert list(table.columns) == ["user", "rank", "item", "score"]
    assert as_rows(table, dataset) == reference(scores, range(60), 7, seen)
    rows = as_rows(table, dataset)
    expected = torch.stack([scores[user, item] for user, _, item in rows])
    assert torch.allclose(torch.from_numpy(table["score"].to_numpy()), expected, atol=1e-9)
    every = recommender.recommend(k=7, exclude_seen=False)
    assert as_rows(every, dataset) == reference(scores, range(60), 7, set())


def test_users_come_in_the_given_order_and_alone_as_with_others(recommender):
    together = recommender.recommend(["u07", "u03"], k=4)
    assert together["user"].tolist() == ["u07"] * 4 + ["u03"] * 4
    alone = recommender.recommend("u03", k=4)
    assert_frame_equal(together[4:].reset_index(drop=True), alone)
    assert recommender.recommend([], k=4).empty


def test_candidates_and_exclusions(recommender, model, dataset):
    scores = scores_of(model, dataset)
    seen = set(map(tuple, edges(dataset, "train", "val", "test").t().tolist()))
    only, never = [2, 3, 5, 8, 13, 21, 34], [5, 13, 30]
    ids = dataset.item_ids
    table = recommender.recommend(["u01", "u02"], 5, candidates=ids[only], exclude=ids[never])
    chosen = [i for i in only if i not in never]
    assert as_rows(table, dataset) == reference(scores, [1, 2], 5, seen, chosen)
    own = {"u01": [ids[0], ids[1]], "u02": ids[3]}
    table = recommender.recommend(["u01", "u02", "u04"], 5, exclude=own)
    forbidden = seen | {(1, 0), (1, 1), (2, 3)}
    assert as_rows(table, dataset) == reference(scores, [1, 2, 4], 5, forbidden)


def test_a_list_ends_where_candidates_end(recommender, dataset):
    table = recommender.recommend("u01", k=1000)
    seen = (edges(dataset, "train", "val", "test")[0] == 1).sum()
    assert len(table) == 40 - int(seen)
    assert recommender.recommend("u01", k=1000, exclude=dataset.item_ids).empty


def test_equal_scores_are_in_the_order_of_rows(dataset):
    model = LightGCN(60, 40)
    torch.nn.init.zeros_(model.item_emb.weight)
    torch.nn.init.zeros_(model.user_emb.weight)
    recommender = Recommender(model, dataset)
    table = recommender.recommend("u05", k=40, exclude_seen=False)
    assert table["item"].tolist() == list(dataset.item_ids)


def test_its_metrics_are_those_of_the_evaluation(model, dataset):
    recommender = Recommender(model, dataset, seen=("train",))
    train, test = edges(dataset, "train"), edges(dataset, "test")
    users = test[0].unique()
    table = recommender.recommend(dataset.user_ids[users.numpy()], k=20)
    held_out = set(map(tuple, test.t().tolist()))
    hits = pd.Series([(user, item) in held_out for user, _, item in as_rows(table, dataset)])
    recall = [
        hits[(table["user"] == dataset.user_ids[u]).to_numpy()].sum() / int((test[0] == u).sum())
        for u in users.tolist()
    ]
    expected = evaluate(recommender.user_emb, recommender.item_emb, test, [train])["Recall@20"]
    assert sum(recall) / len(recall) == pytest.approx(expected, abs=1e-6)


def test_similar_items_have_the_highest_cosine_without_bias(recommender, dataset):
    emb = recommender.item_emb[:, :-1].double()
    emb = emb / emb.norm(dim=1, keepdim=True)
    cosines = emb @ emb[4]
    best = [i for i in cosines.argsort(descending=True).tolist() if i != 4][:6]
    table = recommender.similar_items(dataset.item_ids[4], k=6)
    assert table["item"].tolist() == [dataset.item_ids[i] for i in best]
    assert torch.allclose(torch.tensor(table["score"]), cosines[best], atol=1e-6)
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]


def test_what_there_is_to_show_stays_what_it_is(model, dataset):
    shop = copy.copy(dataset)
    table = pd.DataFrame({"sku": dataset.item_ids, "item": "name", "year": range(40)})
    shop.__class__ = type("Shop", (type(dataset),), {"items": table})
    recommender = Recommender(model, shop)
    shown = recommender.describe([1000])
    assert shown.to_dict("records") == [{"item": 1000, "item (column)": "name", "year": 0}]
    recommender.add_items([7], content_of(dataset, [5]))
    assert str(recommender.describe()["year"].dtype) == "Int64"
    assert recommender.describe(7)["year"].isna().item()


def test_users_and_options_are_those_of_recommend(recommender, tmp_path):
    options = {"k": 2, "exclude_seen": False, "candidates": [1000, 997, 994], "exclude": [994]}
    path = recommender.write(tmp_path / "l.csv", ["u05", "u01"], **options, progress=False)
    assert_frame_equal(pd.read_csv(path), recommender.recommend(["u05", "u01"], **options))
    empty = recommender.write(tmp_path / "none.csv", [], progress=False)
    assert empty.read_text() == "user,rank,item,score\n"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda r: r.recommend("u99"),
            r"unknown user 'u99': 60 users are known, such as 'u00'.*'u0",
        ),
        (lambda r: r.recommend(["zz", "u01", "yy"]), r"unknown user 'zz' and 1 more.*fold_in"),
        (lambda r: r.recommend("u01", k=0), r"'k' must be a whole number, at least 1 \(got 0\)"),
        (lambda r: r.recommend("u01", k=2.5), r"'k' must be a whole number.*got 2.5"),
        (lambda r: r.recommend("u01", k="5"), r"'k' must be a whole number.*got '5'"),
        (lambda r: r.recommend("u01", candidates=[1]), r"unknown item 1: .*add_items"),
        (lambda r: r.recommend("u01", candidates=["1000"]), r"ids are integers, and '1000' is not"),
        (lambda r: r.recommend("u01", candidates=[]), r"'candidates' must hold at least one item"),
        (lambda r: r.recommend("u01", exclude={"u99": [1000]}), r"unknown user 'u99'"),
        (lambda r: r.similar_items(7), r"unknown item 7"),
        (lambda r: r.similar_items("seven"), r"unknown item 'seven': 40 items are known"),
        (lambda r: r.similar_items(None), r"one item must be given"),
    ],
)
def test_a_list_that_cannot_be_made_says_what_to_do(recommender, call, message):
    with pytest.raises(ValueError, match=message):
        call(recommender)


SCORES = torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 5.0]])  # two users, three items


def small(table=None, has_bias=False, item_emb=None):
    """Scores are the users' embeddings; u has seen a, v has seen c and a."""
    users, items = Ids(pd.Index(["u", "v"]), "user"), Ids(pd.Index(["a", "b", "c"]), "item")
    item_emb = torch.eye(3) if item_emb is None else item_emb
    seen = torch.tensor([[1, 0, 1], [2, 0, 0]])
    return Lists(SCORES, item_emb, users, items, table, seen, has_bias)


def test_lists_of_two_users_worked_by_hand():
    lists = small()
    assert lists.recommend(k=2).to_dict("list") == {
        "user": ["u", "u", "v"],
        "rank": [1, 2, 1],
        "item": ["c", "b", "b"],
        "score": [2.0, 1.0, 1.0],
    }
    every = lists.recommend("v", exclude_seen=False)
    assert every["item"].tolist() == ["c", "a", "b"]  # of equal ones the lower row
    both = lists.recommend(["v", "u"], 1, candidates=["b", "c"], exclude={"u": "c"})
    assert both[["user", "item"]].to_numpy().tolist() == [["v", "b"], ["u", "b"]]


def test_history_is_in_the_order_of_rows_with_its_columns():
    table = pd.DataFrame({"id": ["a", "b", "c"], "year": [1, 2, 3]}, index=[9, 8, 7])
    lists = small(table)
    shown = [{"item": "a", "year": 1}, {"item": "c", "year": 3}]
    assert lists.history("v").to_dict("records") == shown
    assert lists.describe(["c", "a"]).to_dict("records") == shown[::-1]
    assert lists.describe()["year"].tolist() == [1, 2, 3]
    assert small().history("u").to_dict("list") == {"item": ["a"]}


def test_a_bias_makes_no_items_alike():
    item_emb = torch.tensor([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0], [3.0, 4.0, -9.0]])
    table = small(has_bias=True, item_emb=item_emb).similar_items("a")
    assert table["item"].tolist() == ["c", "b"]
    assert table["score"].tolist() == pytest.approx([0.6, 0.0])
    table = small(item_emb=item_emb).similar_items("a")
    assert table["item"].tolist() == ["b", "c"]


@pytest.mark.parametrize("at_once", [1, 7])
def test_users_at_a_time_change_nothing(recommender, monkeypatch, at_once):
    expected = recommender.recommend(k=5), recommender.quality(k=5)
    monkeypatch.setattr(module, "USERS_AT_ONCE", at_once)
    assert_frame_equal(recommender.recommend(k=5), expected[0])
    assert_series_equal(recommender.quality(k=5), expected[1])


@pytest.mark.parametrize("form", [np.int64, np.uint8, np.array, torch.tensor])
def test_lengths_are_numbers_of_any_kind(recommender, form, tmp_path):
    calls = {
        "recommend": lambda r, k: r.recommend(["u01", "u02"], k=k),
        "fold_in": lambda r, k: r.fold_in([1000, 997], k=k),
        "similar_items": lambda r, k: r.similar_items(1000, k=k),
        "directions": lambda r, k: r.explain("u01", 1000, k=k).directions,
    }
    for name, call in calls.items():
        assert_frame_equal(call(recommender, form(3)), call(recommender, 3), obj=name)
    assert_series_equal(recommender.quality(form(3)), recommender.quality(3))
    place = tmp_path / "lists.csv"
    recommender.write(place, k=form(3), users_at_once=form(7), progress=False)
    assert len(pd.read_csv(place)) == 3 * recommender.num_users
    assert len(recommender.plot_user("u01", k=form(3)).axes[1].get_yticklabels()) == 3
