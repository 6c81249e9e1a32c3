import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.interactions import as_frame, pairs_of

USERS, ITEMS = Ids(pd.Index(["u", "v", "w"]), "user"), Ids(pd.Index([30, 10, 20]), "item")


def test_a_mapping_and_a_table_say_the_same_and_every_pair_once():
    table = pd.DataFrame(
        {"stars": [5, 1, 2, 3], "item": [10, 30, 10, 30], "user": list("vuvv")}, index=[4, 4, 4, 4]
    )
    before = table.copy()
    expected = pd.DataFrame({"user": ["v", "u", "v"], "item": [10, 30, 30]})
    assert_frame_equal(as_frame(table), expected)
    assert_frame_equal(table, before)
    mapping = {"v": [10, 10, 30], "u": 30, "w": []}
    pairs = [("v", 10), ("v", 30), ("u", 30)]
    assert list(as_frame(mapping).itertuples(index=False, name=None)) == pairs
    assert as_frame({"v": torch.tensor([10, 30])})["item"].tolist() == [10, 30]
    assert as_frame({"v": "one item"})["item"].tolist() == ["one item"]


def test_pairs_are_the_rows_of_their_ids():
    mapping = {"w": [20, 30], "u": [10]}
    assert pairs_of(mapping, USERS, ITEMS).tolist() == [[2, 2, 0], [2, 0, 1]]
    none = pairs_of({"u": []}, USERS, ITEMS)
    assert none.shape == (2, 0) and none.dtype == torch.long


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        ([("u", 10)], r"'interactions' must be a table .*mapping of users to items \(got list\)"),
        (
            pd.DataFrame({"user": ["u"], "sku": [10]}),
            r"'interactions' lacks \['item'\] \(it has \['user', 'sku'\]\): name the columns so",
        ),
        (
            pd.DataFrame({"user": ["u", None, None], "item": [10, 20, 30]}, index=[7, 8, 9]),
            r"'interactions', user ids, row 1 \(from 0\): the id is missing \(nan\), 2 in all",
        ),
        (
            {"u": [10, None]},
            r"'interactions', item ids, row 1 \(from 0\): the id is missing \(None\), 1 in",
        ),
        ({"x": [10]}, r"unknown user 'x'"),
        ({"u": [40]}, r"unknown item 40"),
    ],
)
def test_what_is_no_interaction_is_named(interactions, message):
    with pytest.raises(ValueError, match=message):
        pairs_of(interactions, USERS, ITEMS)
