from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtc_pyg.datasets import from_frames
from gtc_pyg.datasets.frame_columns import (
    as_pandas,
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


class Other:
    r"""A table of a library that is not here, such as polars or DuckDB."""

    columns = ("user", "when")

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        table = pa.table({"user": [2**62 + 1, None], "when": pa.array([dt.date(2024, 1, 1)] * 2)})
        return table.__arrow_c_stream__(requested_schema)


def test_tables_that_speak_arrow_are_taken_exactly() -> None:
    found = as_pandas(Other())
    assert found["user"].tolist() == [2**62 + 1, None]
    assert found["when"].tolist() == [dt.date(2024, 1, 1)] * 2
    for other in (found, found["user"], [1], {"a": [1]}, np.ones(2)):
        assert as_pandas(other) is other


def test_a_level_of_the_index_is_a_column() -> None:
    counts = pd.DataFrame({"user": ["a", "b"], "item": [7, 8], "n": 1}).set_index(["user", "item"])
    assert column(counts, "item", "item", "t").tolist() == [7, 8]
    assert column(counts.reset_index("item"), "user", "user", "t").tolist() == ["a", "b"]


def test_a_hint_is_given_where_a_name_is_near() -> None:
    assert hint("itm", ["user", "item"]) == "; did you mean 'item'?"
    assert hint("q", ["user", "item"]) == ""


@pytest.mark.parametrize("dtype", ["str", "string", object, "int8", "uint64", "Int32"])
def test_ids_keep_their_type_and_categories_become_their_values(dtype: Any) -> None:
    values = pd.Series(["3", "1", "3"]).astype(dtype)
    kinds = values.astype("category")
    for held in (values, pd.Index(values), kinds):
        found = ids(held, "it")
        assert found.tolist() == values.tolist()
        assert found.dtype == (kinds.cat.categories.dtype if held is kinds else dtype)


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
        [0.5, -7.0, 0.5, 7.0],
        pd.to_datetime(["2025-02-01", "2025-01-31", "2025-02-01", "2026-01-01"], utc=True),
    ],
)
def test_times_are_how_many_moments_were_before(moments: Any) -> None:
    values = pd.Series(moments)
    before = [len({other for other in values if other < value}) for value in values]
    assert before == [1, 0, 1, 2]
    assert times(values, "it").tolist() == before
    assert times(values[::-1], "it").tolist() == before[::-1]


WHOLE = st.lists(st.integers(-(2**60), 2**60), min_size=1, max_size=9)
DAYS = st.lists(st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)), min_size=1, max_size=9)
SMALL = ["float64", "Float32", "double[pyarrow]", "category"]
AS_NUMBERS = st.sampled_from(["int64", "Int64", "int64[pyarrow]", object, *SMALL])
AS_DAYS = st.sampled_from(["M8[s]", "M8[ns]", "date32[pyarrow]", "timestamp[us][pyarrow]", object])


@given(WHOLE, AS_NUMBERS)
def test_numbers_of_every_type_are_in_their_order(moments: list[int], dtype: Any) -> None:
    moments = [x % 100 for x in moments] if dtype in SMALL else moments
    order = {x: row for row, x in enumerate(sorted({*moments}))}
    expected = [order[x] for x in moments]
    assert times(pd.Series(moments, dtype=object).astype(dtype), "it").tolist() == expected
    exact = pd.Series([Decimal(x) for x in moments])
    assert times(exact, "it").tolist() == expected


@given(DAYS, AS_DAYS)
def test_days_of_every_type_are_in_their_order(moments: list[dt.date], dtype: Any) -> None:
    order = {x: row for row, x in enumerate(sorted({*moments}))}
    days = pd.Series(moments, dtype=object)
    moment = pd.to_datetime(days).dt.as_unit("us")
    held = [days if dtype in (object, "date32[pyarrow]") else moment, moment.astype(object)]
    for values in (
        held[0].astype(dtype),
        held[1],
        moment.dt.to_period("D"),
        moment.astype("category"),
    ):
        assert times(values, "it").tolist() == [order[x] for x in moments]


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ([1.0, np.inf], r"^it, row 1 \(from 0\): inf, expected a finite number; drop such rows, 1"),
        (pd.Series([-np.inf, 1], dtype=object), r"row 0 \(from 0\): -inf, expected a finite"),
        (pd.Series([1.0, np.inf], dtype="double[pyarrow]"), r"row 1 \(from 0\): inf, expected a"),
        (["1420070400", "1420070401"], r"'1420070400'\): pandas.to_numeric makes numbers"),
        (["2020-01-01", "1420070401"], r"pandas.to_datetime makes datetimes of strings"),
        (["1420070400", None], r"got str, such as '1420070400'\): pandas.to_datetime"),
        ([dt.date(2020, 1, 1), dt.datetime(2020, 1, 1)], r"must hold times of one kind"),
        ([1.0, None], r"row 1 \(from 0\): the time is missing, 1 in all"),
        ([None], r"row 0 \(from 0\): the time is missing"),
        ([True], r"must hold numbers or datetimes"),
    ],
)
def test_what_is_no_time_says_what_to_do(moments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        times(pd.Series(moments), "it")


@pytest.mark.parametrize("dtype", ["str", object, "category"])
def test_splits_are_numbered_in_their_order(dtype: Any) -> None:
    values = pd.Series(["test", "train", "val", "train"], dtype=dtype)
    assert split_labels(values, "it").tolist() == [2, 0, 1, 0]
    with pytest.raises(ValueError, match=r"^it, row 2 \(from 0\): 'vali', .*did you mean 'val'\?$"):
        split_labels(pd.Series(["test", "train", "vali"], dtype=dtype), "it")
