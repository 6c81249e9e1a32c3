from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.models import LightGCN
from gtc_pyg.recommend import Recommender
from gtc_pyg.recommend.item_table import below, without_ids
from gtc_pyg.recommend.tables import read_table, write_table

ROWS, MOST = 20, 10**6
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
WHOLE, NUMBER = st.integers(-(2**63), 2**63 - 1), st.floats()
MOMENT = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1))
ANY = st.one_of(TEXT, WHOLE, NUMBER, st.none(), st.booleans(), st.just(pd.NA), MOMENT)
NESTED = st.recursive(ANY, lambda x: st.lists(x, max_size=2) | st.dictionaries(TEXT, x, max_size=2))
TYPES = [
    (WHOLE, ["int64", "Int64", "int64[pyarrow]", object, "category"]),
    (st.integers(0, 127), ["int8", "uint64", "UInt16", "uint8[pyarrow]", "Sparse[int]"]),
    (NUMBER, ["float16", "float32", "float64", "Float32", "double[pyarrow]", object, "category"]),
    (TEXT, ["str", "string", object, "category", pd.ArrowDtype(pa.string())]),
    (st.booleans(), ["bool", "boolean", object, "bool[pyarrow]", "category"]),
    (MOMENT, ["M8[s]", "M8[ms]", "M8[ns]", "datetime64[us, Europe/Berlin]", "period[D]", object]),
    (st.integers(0, 10**6), ["m8[s]", "m8[ns]", "complex128", pd.ArrowDtype(pa.duration("ms"))]),
    (st.decimals(allow_nan=False, places=2, min_value=0, max_value=99), [object]),
    (st.binary(max_size=3), [object]),
    (st.dates(), [object]),
    (st.lists(TEXT | st.none(), max_size=3), [object, pd.ArrowDtype(pa.list_(pa.string()))]),
    (st.tuples(WHOLE), [object]),
    (st.text(max_size=2), [object]),
    (NESTED, [object]),
    (ANY, [object, "category"]),
]
LABELS = st.one_of(TEXT, st.integers(), st.none(), st.tuples(TEXT, st.integers()), st.just("item"))
LEARNED = PlantedPreferences(30, ROWS, ["image"], mean_degree=6.0)


@st.composite
def columns(draw: st.DrawFn, size: int = ROWS) -> pd.Series:
    r"""A column of any kind, sometimes with gaps."""
    entries, dtypes = draw(st.sampled_from(TYPES))
    some, dtype = draw(st.lists(entries, min_size=1, max_size=4)), draw(st.sampled_from(dtypes))
    some += [None] * draw(st.integers(0, 1))
    values = pd.Series([some[i % len(some)] for i in range(size)], dtype=object)
    try:
        with np.errstate(all="ignore"):
            return values.astype(dtype)
    except Exception:  # gaps that the type does not have, and the like
        return values


@st.composite
def tables(draw: st.DrawFn, size: int = ROWS) -> pd.DataFrame:
    found = draw(st.lists(columns(size), min_size=1, max_size=3))
    table = pd.concat(found, axis=1)
    labels = draw(st.lists(LABELS, min_size=len(found), max_size=len(found)))
    table.columns = pd.Index(labels, tupleize_cols=draw(st.booleans()), dtype=object)
    return table


@given(tables(2))
@settings(max_examples=200, deadline=None)
def test_every_column_comes_back_equal_or_is_named(table: pd.DataFrame) -> None:
    table = without_ids(table, pd.Index(["x", "y"]))
    with TemporaryDirectory() as place:
        path = Path(place, "items.arrow")
        try:
            write_table(table, path)
        except ValueError as error:
            assert any(f"column {name!r} cannot be saved" in str(error) for name in table.columns)
            assert not path.exists()
        else:
            assert_frame_equal(read_table(path, len(table), MOST), table, check_exact=True)


@given(tables())
@settings(max_examples=15, deadline=None)
def test_a_table_is_saved_whole_or_the_old_folder_stays(table: pd.DataFrame) -> None:
    model = LightGCN(30, ROWS)
    with TemporaryDirectory() as place:
        old = Recommender(model, LEARNED).save(f"{place}/m")
        before = {file.name: file.read_bytes() for file in old.iterdir()}
        recommender = Recommender(model, LEARNED)
        recommender.table = without_ids(table, recommender.items.index)
        shown = recommender.describe()
        try:
            recommender.save(old)
        except ValueError as error:
            assert "cannot be saved" in str(error)
            assert {file.name: file.read_bytes() for file in old.iterdir()} == before
        else:
            assert_frame_equal(Recommender.load(old).describe(), shown, check_exact=True)
        assert [file.name for file in old.parent.iterdir()] == ["m"]


KEPT = {
    "strings with gaps": pd.Series(["a", np.nan], dtype=object),
    "lists of texts": pd.Series([["a", "b"], []]),
    "categories in an order": pd.Series(pd.Categorical(["S", "L"], ["S", "M", "L"], ordered=True)),
    "seconds": pd.Series(np.array(["2020-01-01", "NaT"], "M8[s]")),
    "months": pd.Series(pd.period_range("2020", periods=2, freq="M")),
    "decimals": pd.Series([Decimal("1.50"), None]),
    "integers of 64 bits": pd.Series([2**64 - 1, 0], dtype="uint64"),
    "dates": pd.Series([dt.date(2020, 1, 1), None]),
    "structs": pd.Series([{"a": 1}] * 2, dtype=pd.ArrowDtype(pa.struct([("a", pa.int64())]))),
}


@pytest.mark.parametrize("name", KEPT)
def test_common_kinds_of_columns_are_kept(name: str, tmp_path) -> None:
    table = without_ids(KEPT[name].to_frame(name), pd.Index(["x", "y"]))
    write_table(table, tmp_path / "items.arrow")
    assert_frame_equal(
        read_table(tmp_path / "items.arrow", len(table), MOST), table, check_exact=True
    )


@pytest.mark.parametrize(
    "values", [[1.0, "n/a"], [{"a": 1}, {"b": 2}], [(1, 2), (3,)], [{1}, {2}], [2**70, 1], [1, 2.5]]
)
def test_a_column_that_would_change_is_named_and_refused(values, tmp_path) -> None:
    table = pd.DataFrame({"fine": ["a", "b"], "price": pd.Series(values, dtype=object)})
    with pytest.raises(ValueError, match=r"^the items' column 'price' cannot be saved \(.*astype"):
        write_table(table, tmp_path / "items.arrow")
    assert list(tmp_path.iterdir()) == []


def test_every_name_is_a_text_of_its_own() -> None:
    labels = pd.MultiIndex.from_tuples([("price", "mean"), ("price", 2020), ("item", "")])
    table = pd.DataFrame([[1.5, 2, "x"]], columns=labels, index=[7])
    assert without_ids(table, pd.Index(["a"])).to_dict("list") == {
        "price_mean": [1.5],
        "price_2020": [2],
        "item_": ["x"],
    }
    named = [2020, "2020", "item", "value", "sku"]
    table = pd.DataFrame([[1, 2, 3, 4, "a"]], columns=pd.Index(named, name="year"))
    assert without_ids(table, pd.Index(["a"])).to_dict("list") == {
        "2020": [1],
        "2020 (column)": [2],
        "item (column)": [3],
        "value (column)": [4],
    }


def test_a_column_called_value_can_be_shown_beside_values() -> None:
    recommender = Recommender(LightGCN(30, ROWS), LEARNED)
    recommender.table = without_ids(pd.DataFrame({"value": range(100, 120)}), pd.Index(range(20)))
    shown = recommender.explain(0, 1).past_items
    assert shown["value (column)"].tolist() == [100 + item for item in shown["item"]]


def test_rows_below_have_the_columns_of_the_table() -> None:
    table = pd.DataFrame({"year": [1999], "title": ["A"], "size": [0.5]})
    more = pd.DataFrame({"title": ["B"], "sku": [7]}, index=[3])
    found = below(table, more, pd.Index([7]))
    assert found.columns.tolist() == ["year", "title", "size"]
    assert found.index.tolist() == [0, 1] and found["title"].tolist() == ["A", "B"]
    assert str(found["year"].dtype) == "Int64" and found["year"][0] == 1999
    assert found[["year", "size"]].isna().to_numpy().tolist() == [[False, False], [True, True]]
    whole = below(table, table, pd.RangeIndex(len(table)))
    assert whole["year"].dtype == table["year"].dtype and len(whole) == 2
    with pytest.raises(ValueError, match=r"'items' has the columns \['x'\], expected some of"):
        below(table, pd.DataFrame({"x": [1]}), pd.Index([7]))


def alike(x: object, y: object) -> bool:
    if isinstance(x, list | tuple | np.ndarray) and isinstance(y, list | tuple | np.ndarray):
        return list(map(str, x)) == list(map(str, y))
    if np.ndim(x) or np.ndim(y) or isinstance(x, dict) or isinstance(y, dict):
        return str(x) == str(y)
    return bool(pd.isna(x) and pd.isna(y) if pd.isna(x) or pd.isna(y) else x == y)


@given(tables(3), tables(2))
@settings(max_examples=40, deadline=None)
def test_rows_below_change_no_entry(table: pd.DataFrame, more: pd.DataFrame) -> None:
    table = without_ids(table, pd.Index(["x", "y", "z"]))
    more = without_ids(more, pd.Index(["p", "q"]))
    more.columns = [*table.columns, "a", "b"][: len(more.columns)]
    more = more[[name for name in more.columns if name in table.columns]]
    for rows in (None, more):
        found = below(table, rows, pd.Index(["p", "q"]))
        for name in table.columns:
            added = [None] * 2 if rows is None or name not in rows else rows[name].tolist()
            assert all(map(alike, found[name].tolist(), [*table[name].tolist(), *added])), name


def test_rows_below_go_to_their_ids() -> None:
    table, ids = pd.DataFrame({"title": ["A"]}), pd.Index([7, 5, 9], name="sku")
    rows = pd.DataFrame({"title": ["five", "nine", "seven"], "sku": [5, 9, 7]})
    for more in (
        rows,
        rows.rename(columns={"sku": "item"}),
        rows.set_index("sku"),
        rows.set_index(rows["sku"].astype(float).rename(None))[["title"]],
        rows.iloc[[2, 0, 1]][["title"]].reset_index(drop=True),
    ):
        assert below(table, more, ids)["title"].tolist() == ["A", "seven", "five", "nine"]
