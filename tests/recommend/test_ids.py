import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.recommend.ids import Ids


@pytest.mark.parametrize(
    "index",
    [pd.Index(["b", "", "ü 😀", "a\nb"]), pd.Index([7, -3, 2**62, 0]), pd.RangeIndex(4)],
)
def test_rows_and_ids_undo_each_other(index):
    ids = Ids(index, "item")
    rows = torch.tensor([2, 0, 3])
    assert torch.equal(ids.rows(ids[rows]), rows)
    assert torch.equal(ids.rows(list(ids[rows])), rows)
    assert torch.equal(ids.rows(index[1]), torch.tensor([1]))
    assert torch.equal(ids.rows(None), torch.arange(4))
    assert ids.rows([]).dtype == torch.long and len(ids) == 4


def test_new_ids_come_after_the_known_ones_and_keep_their_type():
    ids = Ids(pd.Index([5, 9]), "user").extended(np.array([7, 1]))
    assert ids.index.tolist() == [5, 9, 7, 1] and ids.index.dtype == np.int64
    with pytest.raises(ValueError, match=r"user ids must be unique .*got 3 twice"):
        ids.extended([3, 3])
    with pytest.raises(ValueError, match=r"user ids: ids must be strings or integers \(got fl"):
        ids.extended([1.5])


@pytest.mark.parametrize(
    ("known", "asked", "message"),
    [
        (["lisbon", "lima"], "lisbin", r"did you mean 'lisbon'\?; items that came after"),
        (
            [1, 2],
            "two",
            r"2 items are known, such as 1, 2; ids are integers, and 'two' is not; items",
        ),
        ([1, 2], "2", r"ids are integers, and '2' is not: give 2$"),
        (["1", "2"], 2, r"unknown item 2: .*ids are strings, and 2 is not: give '2'$"),
        (["007"], 7, r"ids are strings, and 7 is not; items that came after"),
        ([], 1, r"unknown item 1: 0 items are known"),
        ([1, 2], {1: 2}, r"item ids: one id or several are expected \(got a table or mapping\)"),
    ],
)
def test_an_unknown_id_says_what_to_do(known, asked, message):
    with pytest.raises(ValueError, match=message):
        Ids(pd.Index(known), "item").rows(asked)


def test_one_id_is_one():
    ids = Ids(pd.Index([5, 9]), "user")
    assert ids.row(9).tolist() == [1]
    for wrong, num in (([5, 9], 2), ([], 0), (None, 0)):
        with pytest.raises(ValueError, match=rf"one user must be given \(got {num}\)"):
            ids.row(wrong)
