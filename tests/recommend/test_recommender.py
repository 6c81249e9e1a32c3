import copy

import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from gtc_pyg.evaluation import evaluate
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import GTC, LightGCN
from gtc_pyg.recommend import Recommender


def scores_of(model, dataset):
    inputs = GraphInputs.from_data(dataset[0])
    with torch.no_grad():
        user_emb, item_emb = copy.deepcopy(model).eval()(
            inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict
        )
    return user_emb.double() @ item_emb.double().t()


def edges(dataset, *splits):
    views = [dataset.view(split)["user", "rates", "item"].edge_label_index for split in splits]
    return torch.cat(views, dim=1)


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


def test_users_come_in_the_order_they_were_asked_for_and_alone_as_with_others(recommender):
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


def test_similar_items_are_those_of_the_highest_cosine_without_the_bias(recommender, dataset):
    emb = recommender.item_emb[:, :-1].double()
    emb = emb / emb.norm(dim=1, keepdim=True)
    cosines = emb @ emb[4]
    best = [i for i in cosines.argsort(descending=True).tolist() if i != 4][:6]
    table = recommender.similar_items(dataset.item_ids[4], k=6)
    assert table["item"].tolist() == [dataset.item_ids[i] for i in best]
    assert torch.allclose(torch.tensor(table["score"]), cosines[best], atol=1e-6)
    assert table["rank"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_trained_user_folded_in_with_the_same_items_has_a_list_of_their_own(recommender, dataset):
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


def test_quality_of_a_case_worked_by_hand(dataset):
    model = LightGCN(60, 40, hidden_channels=1)
    torch.nn.init.ones_(model.user_emb.weight)
    recommender = Recommender(model, dataset)
    recommender.user_emb = torch.ones(60, 1)
    recommender.item_emb = torch.arange(40.0).view(-1, 1)  # everybody's list begins with 39, 38
    table = recommender.recommend(k=2)
    counts = edges(dataset, "train", "val", "test")[1].bincount(minlength=40)
    found = recommender.quality(k=2, category="kind")
    listed = dataset.item_ids.get_indexer(table["item"])
    assert found["AveragePopularity@2"] == pytest.approx(counts[listed].double().mean().item())
    assert found["Coverage@2"] == pytest.approx(len(set(listed)) / 40)
    kinds = torch.tensor(listed % 3).view(-1, 2)
    assert found["Diversity@2"] == pytest.approx(
        (kinds[:, 0] != kinds[:, 1]).double().mean().item()
    )
    assert 0 <= found["Personalization@2"] <= 1
    with pytest.raises(
        ValueError, match=r"'category' must be one of .*'title', 'kind'.*got 'brand'"
    ):
        recommender.quality(category="brand")
    with pytest.raises(ValueError, match=r"'k' must leave .*got 1000"):
        recommender.quality(k=1000)


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
        (lambda r: r.explain("u01", [1000, 997]), r"one item must be given \(got 2\)"),
        (lambda r: r.fold_in([7]), r"unknown item 7"),
        (lambda r: r.add_users({"u01": [1000]}), r"user 'u01' is known already"),
        (lambda r: r.add_users({17: [1000]}), r"user ids must be strings .*got 17, integers"),
        (
            lambda r: r.add_users({"n": [1000], 5: [1000]}),
            r"user ids must be strings .*mixed types",
        ),
        (
            lambda r: r.fold_in([1000], exclude={"u01": [997]}),
            r"one item id or several are expected",
        ),
        (lambda r: r.explain(item=1000, interactions={"u01": [997]}), r"one item id or several"),
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


def content_of(dataset, rows):
    return {name: x[rows] for name, x in dataset.features.items()}


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


def test_content_of_a_table_goes_by_id(recommender, dataset):
    tables = {
        name: pd.DataFrame(x.numpy(), index=[8, 7])
        for name, x in content_of(dataset, [6, 5]).items()
    }
    recommender.add_items([7, 8], tables)
    for name, x in dataset.features.items():
        assert torch.equal(recommender.features[name][-2:], x[[5, 6]])


@pytest.mark.parametrize("mask", [{}, {"has_image": [True]}])
def test_one_item_that_has_all_of_an_incomplete_modality(dataset, mask):
    some = copy.copy(dataset)
    has = torch.arange(40) % 3 > 0

    class Some(type(dataset)):
        def view(self, split):
            data = copy.copy(dataset.view(split))
            data["item"].has_image = has
            return data

        def __getitem__(self, index):
            return self.view("train")

    some.__class__ = Some
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    recommender = Recommender(GTC(60, 40, widths, 16, incomplete=["image"]), some)
    for ids, names in (([7], ["image", "text"]), ([8], ["image"])):
        content = {name: x[:1] for name, x in dataset.features.items() if name in names}
        recommender.add_items(ids, {**content, **mask})
    assert len(recommender.recommend("u01", candidates=[7, 8])) == 2
    assert recommender.features["has_image"][-2:].all()


def test_an_added_item_may_lack_a_modality(recommender, dataset):
    one = content_of(dataset, [5])
    recommender.add_items([7], {"image": one["image"]})
    recommender.add_items([8], {**one, "text": one["text"] * float("nan"), "has_text": [False]})
    pair = recommender.recommend("u01", candidates=[7, 8])
    assert pair["score"].iloc[0] == pytest.approx(pair["score"].iloc[1], abs=1e-6)


@pytest.mark.parametrize(
    ("ids", "content", "message"),
    [
        ([7], {}, r"'features' must hold content, some of \['image', 'text'\]"),
        ([7], {"smell": [[1.0]]}, r"'features' holds \['smell'\], expected some of"),
        (
            [7, 8],
            {"image": torch.zeros(1, 32)},
            r"'features' at 'image' must be \[2, 32\].*\[1, 32",
        ),
        ([7], {"image": torch.full((1, 32), float("inf"))}, r"'image': row 0 is not finite"),
        ([7], {"image": torch.zeros(1, 32), "has_image": [1]}, r"'has_image' must be bool \[1\]"),
        ([7], {"image": "sea"}, r"'features' at 'image' must be numbers"),
        (
            [7],
            {"image": pd.DataFrame(0.0, index=[8], columns=range(32))},
            r"ids as index.*lacking \[7",
        ),
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
