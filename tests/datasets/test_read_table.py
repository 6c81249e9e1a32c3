from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gtc_pyg.datasets import read_table


def written(folder: Path, *lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_ids_stay_text_and_other_columns_are_as_in_pandas(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, "user,stars,item,note", "007,4.5,1e3,NA", "NA,,,True")
    table = read_table(path, ["user", "item"])
    assert table.columns.tolist() == ["user", "stars", "item", "note"]
    assert table["user"].tolist() == ["007", "NA"]
    assert table["item"].tolist() == ["1e3", ""]
    others = ["stars", "note"]
    pd.testing.assert_frame_equal(table[others], pd.read_csv(path)[others])
    assert read_table(path)["user"].tolist()[0] == 7


def test_columns_keep_their_order_for_any_order_of_ids(tmp_path: Path) -> None:
    path = written(tmp_path, "item,user", "tea,ann", "pie,bob")
    for ids in (["item", "user"], ["user", "item"]):
        table = read_table(path, ids)
        assert table.to_dict("list") == {"item": ["tea", "pie"], "user": ["ann", "bob"]}


def test_ids_that_the_file_lacks_are_left_to_those_who_need_them(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "who,item", "1,2"), ["user", "item"])
    assert table.to_dict("list") == {"who": [1], "item": ["2"]}


def test_named_dates_are_moments_in_utc_and_others_text(tmp_path: Path) -> None:
    noon = ["2025-01-31T12:00:00Z", "2025-01-31T14:00:00+02:00", "2025-01-31T07:00:00-05:00"]
    path = written(tmp_path, "when", *noon, "2025-01-31")
    moments = read_table(path, time="when")["when"]
    assert moments.tolist() == [pd.Timestamp("2025-01-31 12:00", tz="UTC")] * 3 + [
        pd.Timestamp("2025-01-31", tz="UTC")
    ]
    assert read_table(path)["when"].tolist() == [*noon, "2025-01-31"]


def test_a_format_says_which_number_is_the_month(tmp_path: Path) -> None:
    path = written(tmp_path, "when", "02.03.2025")
    for form, month in (("%d.%m.%Y", 3), ("%m.%d.%Y", 2)):
        (moment,) = read_table(path, time="when", time_format=form)["when"]
        assert moment.month == month


@pytest.mark.parametrize("first", ["1738281600", "0.5", "-3"])
def test_numbers_stay_numbers(tmp_path: Path, first: str) -> None:
    table = read_table(written(tmp_path, "when", first, "2"), time="when", time_format="%Y")
    assert table["when"].tolist() == [float(first), 2]


def test_a_text_is_what_stands_there_and_numbers_may_be_missing(tmp_path: Path) -> None:
    path = written(tmp_path, "brand,price,item", "NA,1.5,a", "Acme,NA,b", ",2,c", "null,,d")
    table = read_table(path, ["item"])
    assert table["brand"].fillna("-").tolist() == ["NA", "Acme", "-", "null"]
    assert table["price"].fillna(-1).tolist() == [1.5, -1, 2, -1]


def test_columns_without_a_name_are_no_ids_and_do_no_harm(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "user,item,,", "007,NA,,", "b,c,1,"), ["user", "item"])
    assert table["user"].tolist() == ["007", "b"] and table["item"].tolist() == ["NA", "c"]


def test_a_long_column_of_words_and_numbers_is_text_throughout(tmp_path: Path) -> None:
    path = written(tmp_path, "item,brand", *(["a,001"] * 200_000), "b,NA", "c,x")
    brand = read_table(path, ["item"])["brand"]
    assert set(brand) == {"001", "NA", "x"}


@pytest.mark.parametrize("first", ["1420070400", "2015010112", "1.5e9"])
def test_a_word_among_epochs_is_named(tmp_path: Path, first: str) -> None:
    path = written(tmp_path, "when", first, "1420070401", "n/a!", "1420070402")
    with pytest.raises(ValueError, match=r"row 2 .*column 'when': 'n/a!' among numbers, expected"):
        read_table(path, time="when")
