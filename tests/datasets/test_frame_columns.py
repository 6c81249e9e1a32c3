from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from gtc_pyg.datasets import from_frames
from gtc_pyg.datasets.frame_columns import (
    column,
    hint,
    ids,
    numbers,
    split_labels,
    times,
)


def test_an_id_with_spaces_around_it_is_told():
    pairs = pd.DataFrame({"user": ["a", "a", "a", "b", "b ", "b"], "item": list("xyzxyz")})
    with pytest.warns(UserWarning, match=r"row 4 \(from 0\): the id 'b ' has spaces around it, 1"):
        from_frames(pairs, features={"text": {name: [1.0] for name in "xyz"}})


def test_a_column_is_found_by_name_and_counted_from_0() -> None:
    frame = pd.DataFrame({"user": ["a", "b"]}, index=[7, 7])
    expected = pd.Series(["a", "b"], name="user")
    pd.testing.assert_series_equal(column(frame, "user", "user", "t"), expected)
    with pytest.raises(ValueError, match=r"^'t' has no column 'usr' \(it has \['user'\]\); did y"):
        column(frame, "usr", "user", "t")


def test_a_hint_is_given_where_a_name_is_near() -> None:
    assert hint("itm", ["user", "item"]) == "; did you mean 'item'?"
    assert hint("q", ["user", "item"]) == ""


@pytest.mark.parametrize("dtype", ["str", "string", object, "int8", "uint64", "Int32"])
def test_ids_keep_their_type_and_categories_become_what_they_stand_for(dtype: Any) -> None:
    values = pd.Series(["3", "1", "3"]).astype(dtype)
    kinds = values.astype("category")
    for given in (values, pd.Index(values), kinds):
        found = ids(given, "it")
        assert found.tolist() == values.tolist()
        assert found.dtype == (kinds.cat.categories.dtype if given is kinds else dtype)


@pytest.mark.parametrize("dtype", ["int64", "float32", "Int64", "Float64", object])
def test_numbers_are_float64(dtype: Any) -> None:
    found = numbers(pd.Series([3, 0, -2]).astype(dtype), "it")
    assert found.dtype == np.float64
    assert found.tolist() == [3.0, 0.0, -2.0]
    with pytest.raises(
        ValueError, match=r"^it, row 1 \(from 0\): 0.0, expected a positive finite .* 2 in"
    ):
        numbers(pd.Series([3, 0, -2]).astype(dtype), "it", positive=True)


@pytest.mark.parametrize(
    "moments",
    [
        [2**60 + 1, 2**60, 2**60 + 1, 2**60 + 2],
        [0.5, -float("inf"), 0.5, 7.0],
        pd.to_datetime(["2025-02-01", "2025-01-31", "2025-02-01", "2026-01-01"], utc=True),
    ],
)
def test_times_are_how_many_moments_were_before(moments: Any) -> None:
    values = pd.Series(moments)
    before = [len({other for other in values if other < value}) for value in values]
    assert before == [1, 0, 1, 2]
    assert times(values, "it").tolist() == before
    assert times(values[::-1], "it").tolist() == before[::-1]


@pytest.mark.parametrize("dtype", ["str", object, "category"])
def test_splits_are_numbered_in_their_order(dtype: Any) -> None:
    values = pd.Series(["test", "train", "val", "train"], dtype=dtype)
    assert split_labels(values, "it").tolist() == [2, 0, 1, 0]
    with pytest.raises(ValueError, match=r"^it, row 2 \(from 0\): 'vali', .*did you mean 'val'\?$"):
        split_labels(pd.Series(["test", "train", "vali"], dtype=dtype), "it")
