import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from gtc_pyg.datasets import from_frames
from gtc_pyg.models import GTC, ContentFilter
from gtc_pyg.recommend import Recommender
from gtc_pyg.recommend.content import joined, read_content
from gtc_pyg.transforms import ItemKNNGraph
from tests.recommend.parts import content_of


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
    recommender = Recommender(
        GTC(60, 40, widths, ContentFilter(widths, 16, incomplete=["image"])), some
    )
    for ids, names in (([7], ["image", "text"]), ([8], ["image"])):
        content = {name: x[:1] for name, x in dataset.features.items() if name in names}
        recommender.add_items(ids, {**content, **mask})
    assert len(recommender.recommend("u01", candidates=[7, 8])) == 2
    assert recommender.features["has_image"][-2:].all()


@pytest.mark.parametrize(
    "form",
    [
        lambda x: x.bfloat16().float().requires_grad_(),
        lambda x: list(x.requires_grad_()),
        lambda x: csr_array(x.numpy()),
        lambda x: pd.DataFrame({"emb": list(x.numpy())}, index=[7, 8]).iloc[::-1],
        lambda x: pd.Series([str(row.tolist()) for row in x], index=[7, 8]).iloc[::-1],
        lambda x: {8: x[1], 7: x[0]},
    ],
)
def test_added_content_is_the_same_in_every_form(recommender, dataset, form):
    rows = content_of(dataset, [5, 6])
    rows["image"] = rows["image"].bfloat16().float()
    recommender.add_items([7, 8], {**rows, "image": form(rows["image"].clone())})
    assert torch.equal(recommender.features["image"][-2:], rows["image"])


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
        ([7], {"image": "sea"}, r"'features' at 'image' must hold numbers"),
        (
            [7],
            {"image": pd.DataFrame(0.0, index=[8], columns=range(32))},
            r"ids as index.*lacking \[7",
        ),
    ],
)
def test_content_of_a_wrong_shape_is_refused_and_changes_nothing(
    recommender, ids, content, message
):
    with pytest.raises(ValueError, match=message):
        recommender.add_items(ids, content)
    assert recommender.num_items == 40 and recommender.item_emb.size(0) == 40


KNOWN = {"image": torch.ones(3, 2), "text": torch.ones(3, 1)}
NEW = pd.Index([8, 7])


def as_lists(content):
    return {name: x.tolist() for name, x in content.items()}


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_content_is_zero_and_masked_where_there_is_none(make):
    text, nan = make([[5.0], [6.0]]), float("nan")
    image = {"image": make([[1.0, 2.0], [nan, 4.0]]), "has_image": make([True, False])}
    assert as_lists(read_content({"text": text, **image}, KNOWN, NEW)) == {
        "image": [[1.0, 2.0], [0.0, 0.0]],
        "has_image": [True, False],
        "text": [[5.0], [6.0]],
    }
    assert as_lists(read_content({"text": text}, KNOWN, NEW)) == {
        "image": [[0.0, 0.0], [0.0, 0.0]],
        "has_image": [False, False],
        "text": [[5.0], [6.0]],
    }


def test_rows_of_a_table_come_in_any_order_and_may_be_more():
    text = pd.DataFrame({"x": [1.0, 2.0, 3.0]}, index=[7, 9, 8])
    for rows in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        found = read_content({"text": text.iloc[rows]}, KNOWN, NEW)
        assert found["text"].tolist() == [[3.0], [1.0]]
    with pytest.raises(ValueError, match=r"each once: .*\(lacking \[\], it has \[7, 8, 7\]\)"):
        read_content({"text": text.set_axis([7, 8, 7])}, KNOWN, NEW)


def test_what_is_given_is_not_changed():
    given = {"text": torch.tensor([[1.0], [2.0]]), "has_text": torch.tensor([True, False])}
    read_content(given, KNOWN, NEW)["text"].fill_(9.0)
    assert as_lists(given) == {"text": [[1.0], [2.0]], "has_text": [True, False]}


def test_joined_content_has_a_mask_where_either_side_has_one():
    few = {"image": torch.zeros(1, 2), "has_image": torch.tensor([False]), "text": torch.ones(1, 1)}
    for first, second, mask in (
        (KNOWN, few, [True] * 3 + [False]),
        (few, KNOWN, [False] + [True] * 3),
        (few, few, [False] * 2),
    ):
        found = joined(first, second)
        assert set(found) == {"image", "has_image", "text"}
        assert found["has_image"].tolist() == mask
        for name in ("image", "text"):
            assert found[name].tolist() == first[name].tolist() + second[name].tolist()
    assert set(joined(KNOWN, KNOWN)) == {"image", "text"}


def test_a_mask_by_id_goes_by_id():
    image = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], index=[7, 8])
    mask = pd.Series({7: True, 8: False})
    found = read_content({"image": image, "has_image": mask}, KNOWN, NEW)
    assert as_lists(found)["image"] == [[0.0, 0.0], [1.0, 2.0]]
    assert as_lists(found)["has_image"] == [False, True]
    rows = pd.Index([2, 0, 1])
    x, has = image.iloc[[0, 1, 0]].reset_index(drop=True), pd.Series([False, True, True])
    assert read_content({"image": x, "has_image": has}, KNOWN, rows)["has_image"].tolist() == [
        True,
        False,
        True,
    ]
    with pytest.raises(ValueError, match=r"'has_image' must have the items' ids as index"):
        read_content({"image": image, "has_image": mask[[7]]}, KNOWN, NEW)


def test_a_column_that_the_items_table_lacks_is_refused(recommender):
    recommender.table = pd.DataFrame({"title": ["x"] * recommender.num_items})
    content = {name: torch.zeros(1, x.size(1)) for name, x in recommender.features.items()}
    with pytest.raises(ValueError, match=r"columns \['name'\], expected some of \['title'\]"):
        recommender.add_items([999], content, pd.DataFrame({"name": ["Neu"]}))
    with pytest.raises(ValueError, match=r"columns \['item'\].* in the order of 'ids'"):
        recommender.add_items([999], content, pd.DataFrame({"item": [998], "title": ["x"]}))
    recommender.add_items([999], content, pd.DataFrame({"sku": [999], "title": ["Neu"]}))
    assert recommender.describe([999])["title"].tolist() == ["Neu"]


NAMED = {"image": ("red", "blue")}


@given(st.permutations([0, 1, 2]), st.permutations([0, 1]), st.sampled_from(["table", "item"]))
def test_columns_and_rows_go_by_name(rows, columns, how):
    table = pd.DataFrame({"red": [1.0, 2.0, 3.0], "blue": [4.0, 5.0, 6.0]}, index=[7, 9, 8])
    table = table.iloc[rows, columns]
    if how == "item":
        table = table.rename_axis("item").reset_index()
    found = read_content({"image": table}, KNOWN, NEW, NAMED)
    assert found["image"].tolist() == [[3.0, 6.0], [1.0, 4.0]]


@pytest.mark.parametrize("names", [["red", "green"], ["Red", "Blue"], ["0", "blue"], [1, 0.5]])
def test_other_names_of_columns_are_refused(names):
    table = pd.DataFrame(np.ones((2, 2)), index=NEW, columns=names)
    with pytest.raises(ValueError, match=r"'image' must have the columns of training, \['red', 'b"):
        read_content({"image": table}, KNOWN, NEW, NAMED)


@pytest.mark.parametrize(
    ("trained", "given_", "expected"),
    [
        ((), ["red", "blue"], [1.0, 2.0]),  # one side has no names
        (("red", "blue"), [0, 1], [1.0, 2.0]),
        ((), [0, 1], [1.0, 2.0]),
        ((), [1, 0], [2.0, 1.0]),  # numbers in another order are names
        ((), ["1", "0"], [2.0, 1.0]),
        (("a", "b"), [("a"), ("b")], [1.0, 2.0]),
    ],
)
def test_columns_without_names_stay_in_their_order(trained, given_, expected):
    table = pd.DataFrame([[1.0, 2.0]] * 2, index=NEW, columns=given_)
    names = {"image": trained} if trained else {}
    assert read_content({"image": table}, KNOWN, NEW, names)["image"].tolist() == [expected] * 2


@pytest.mark.parametrize(
    "make", [dict, pd.Series, lambda x: pd.Series(x).iloc[::-1], lambda x: pd.DataFrame(x).T]
)
def test_content_by_id_may_be_a_dict_or_a_series(make):
    found = read_content({"image": make({7: [1.0, 2.0], 8: [3.0, 4.0]})}, KNOWN, NEW)
    assert found["image"].tolist() == [[3.0, 4.0], [1.0, 2.0]]


@pytest.mark.parametrize("update", ["frame", "dataset", "saved"])
def test_columns_keep_their_names_until_items_are_added(update, tmp_path):
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame({"user": rng.integers(9, size=90), "item": rng.integers(12, size=90)})
    content = pd.DataFrame(rng.random((12, 3)), columns=["c", "a", "b"])
    graph = ItemKNNGraph(k=3)
    dataset = from_frames(pairs, features={"image": content}, pre_transform=graph)
    assert dataset.feature_columns == {"image": ("c", "a", "b")}
    torch.manual_seed(0)
    model = GTC(dataset.num_users, dataset.num_items, {"image": 3}, ContentFilter({"image": 3}, 8))
    recommender = Recommender(model, dataset)
    if update == "saved":
        recommender = Recommender.load(recommender.save(tmp_path / "m"))
    options = {"epochs": 1, "progress": False, "out": tmp_path / "runs"}
    if update == "frame":
        new = pd.DataFrame({"user": [100, 100, 100, 101], "item": [0, 1, 2, 3]})
        recommender = recommender.update(new, **options)
    if update == "dataset":
        sorted_ = {"image": content[["a", "b", "c"]]}
        other = from_frames(pairs, features=sorted_, pre_transform=graph)
        with pytest.raises(
            ValueError, match=r"columns of content 'image' in the order of training"
        ):
            recommender.update(other, **options)
    known = content.iloc[[4]].set_axis([50])
    recommender.add_items([50], {"image": known[["b", "a", "c"]]})
    assert torch.equal(recommender.features["image"][-1], recommender.features["image"][4])
    with pytest.raises(ValueError, match=r"it lacks \['b'\] and has \['B'\] besides"):
        recommender.add_items([51], {"image": known.set_axis([51]).rename(columns={"b": "B"})})
