from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gtc_pyg.datasets import from_frames
from gtc_pyg.datasets.frame_content import Content, read_content
from tests.datasets.frames import catalogue, content, log


def test_content_without_ids_has_the_rows_of_the_items() -> None:
    table, items = log(), catalogue()
    x = content(items)
    by_row = from_frames(table, items, {"text": torch.from_numpy(x)}).features["text"]
    frame = pd.DataFrame(x, index=items["item"]).sample(frac=1, random_state=1)
    by_index = from_frames(table, items.set_index("item"), {"text": frame}).features["text"]
    by_column = from_frames(table, items, {"text": frame.reset_index()}).features["text"]
    by_dict = from_frames(table, items, {"text": dict(zip(items["item"], x, strict=True))})
    assert by_row.dtype == torch.float32
    assert torch.equal(by_row, torch.from_numpy(x).float())
    for other in (by_index, by_column, by_dict.features["text"]):
        assert torch.equal(by_row, other)


def twelve(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})


def test_numbers_of_all_items_under_another_name_are_ids():
    pairs = twelve(user=np.repeat(np.arange(4), 12), item=list(range(12)) * 4)
    content = twelve(sku=range(11, -1, -1), x=np.linspace(0, 1, 12))
    with pytest.raises(ValueError, match=r"a column 'sku' .* rename_axis\('item'\)"):
        from_frames(pairs, features={"text": content})
    dataset = from_frames(pairs, features={"text": content.rename_axis("item")})
    assert dataset.features["text"][:, 0].tolist() == list(range(11, -1, -1))


def test_numbers_kept_as_objects_are_content():
    pairs = twelve(user=np.repeat(np.arange(4), 12), item=list(range(12)) * 4)
    content = twelve(x=np.linspace(0, 1, 12), y=np.arange(12) % 3).astype(object)
    found = from_frames(pairs, features={"text": content}).features["text"]
    assert found[:, 1].tolist() == [float(i % 3) for i in range(12)]


def test_rows_go_to_their_items_and_others_have_none() -> None:
    given = Content(pd.Index(["c", "a"]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    x, has = given.rows_of(pd.Index(list("abc")))
    assert x.tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert has.tolist() == [True, False, True]
    x, has = Content(None, given.x).rows_of(pd.Index(list("ba")))
    assert torch.equal(x, given.x) and has.tolist() == [True, True]


@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        lambda x: np.asarray(x, dtype=np.int64),
        lambda x: np.asarray(x, order="F"),
        lambda x: np.asarray(x, dtype=np.float32)[::-1][::-1],
        torch.tensor,
        lambda x: torch.tensor(x).bfloat16().requires_grad_(),
        list,
    ],
)
def test_content_is_float32_however_it_is_given(make: Callable[[Any], Any]) -> None:
    rows, items = [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pd.Index(list("abc"))
    found = read_content({"text": make(rows)}, "item", items, items)["text"]
    assert found.ids is None
    assert torch.equal(found.x, torch.tensor(rows))
    assert found.x.is_contiguous() and not found.x.requires_grad


def test_content_of_untouched_items_needs_no_table_of_items() -> None:
    text = {"b": np.array([1.0]), "new": [2]}
    found = read_content({"text": text}, "item", None, pd.Index(["a", "b"]))["text"]
    assert found.ids is not None and found.ids.tolist() == ["b", "new"]
    assert found.x.tolist() == [[1.0], [2.0]]
    with pytest.raises(ValueError, match=r"1 item\(s\) that 'items' lacks, such as 'new'; add"):
        read_content({"text": text}, "item", pd.Index(["a", "b"]), pd.Index(["b"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pd.Series(["a tea", "a pie"], index=["x", "y"]), r"holds text such as 'a tea': encode it"),
        (pd.Series([1.5, 2.5], index=["x", "y"]), r"one number for each item: give a table"),
        (
            pd.DataFrame({"d": pd.to_datetime(["2024-01-01"] * 2)}, index=["x", "y"]),
            r"must hold numbers, \[n, F\] \(column 'd' holds Timestamp",
        ),
        (pd.DataFrame({"d": [1.5, "x"]}, index=["x", "y"]), r"column 'd' holds 'x'"),
        (pd.DataFrame({"d": [1j, 2]}, index=["x", "y"]), r"column 'd' holds 1j"),
    ],
)
def test_what_is_no_vector_of_numbers_says_what_to_do(content, message: str) -> None:
    pairs = pd.DataFrame({"user": list("aabb"), "item": list("xyxy")})
    with pytest.raises(ValueError, match=message):
        from_frames(pairs, features={"text": content})


PRODUCTS = st.lists(st.integers(1, 10**5), min_size=8, max_size=20, unique=True)
SPELLINGS = {
    "upper and lower case": str.lower,
    "leading zeros": lambda x: x.lstrip("0"),
    "the prefix 'sku-'": lambda x: f"sku-{x}",
    "a decimal point": lambda x: f"{x}.0",
    "spaces around them": lambda x: f"{x} ",
    "how accents": lambda x: unicodedata.normalize("NFD", x),
}


def shop(numbers: list[int]) -> tuple[pd.DataFrame, list[str]]:
    items = [f"00{x}\u00c9" for x in numbers]
    pairs = [(user, item) for user in range(4) for item in items if len(items) > user]
    return pd.DataFrame(pairs, columns=["user", "item"]), items


@pytest.mark.filterwarnings("ignore:.*has spaces around it")
@given(PRODUCTS, st.sampled_from(sorted(SPELLINGS)), st.booleans())
@settings(max_examples=40, deadline=None)
def test_content_whose_ids_meet_no_item_is_refused(numbers, by: str, as_dict: bool) -> None:
    table, items = shop(numbers)
    names = [SPELLINGS[by](item) for item in items]
    text = {name: [1.0, float(row)] for row, name in enumerate(names)}
    held = text if as_dict else pd.DataFrame(text).T
    with pytest.raises(ValueError, match=rf"have no id in common.*; they differ by {by}") as error:
        from_frames(table, features={"text": held})
    shown = [*names[:2], *dict.fromkeys(table["item"][:2])]
    assert all(repr(name) in str(error.value) for name in shown)
    listed = pd.DataFrame({"item": items})
    with pytest.raises(ValueError, match=rf"that 'items' lacks, .*; they differ by {by}"):
        from_frames(table, listed, {"text": held})
    both = pd.DataFrame({"item": [*items, *names]})  # an outer join of log and catalogue
    with pytest.raises(ValueError, match=rf"have no id in common.*; they differ by {by}"):
        from_frames(table, both, {"text": held})


@given(PRODUCTS, st.integers(1, 19))
@settings(max_examples=40, deadline=None)
def test_content_of_few_of_the_items_is_warned_of(numbers, num_common: int) -> None:
    table, items = shop(numbers)
    num_common = min(num_common, len(items))
    others = [f"other{x}" for x in range(len(items) - num_common)]
    text = {name: [1.0, 2.0] for name in [*items[:num_common], *others]}
    share = num_common / len(items)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        from_frames(table, features={"text": text})
    found = [str(w.message) for w in told if "of the fewer are in both" in str(w.message)]
    assert len(found) == (share < 0.5)
    assert not found or f"only {share:.0%} of the fewer" in found[0]


def test_content_of_a_part_and_of_more_items_is_no_warning() -> None:
    table, items = shop(list(range(1, 13)))
    for names in (items[:2], [*items, *(f"new{x}" for x in range(99))]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            from_frames(table, features={"text": {name: [1.0, 2.0] for name in names}})
