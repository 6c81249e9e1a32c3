from __future__ import annotations

import unicodedata
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gtc_pyg.datasets.exact_ids import (
    appended,
    as_list,
    check_same_kind,
    difference,
    exact_ids,
    rows_of,
    shared,
    show,
)

SIGNED = st.integers(-(2**63), 2**63 - 1)
UNSIGNED = st.integers(0, 2**64 - 1)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
SURROGATES = st.text(st.characters(), max_size=3)
SETS = st.one_of(*(st.lists(kind, min_size=1, max_size=8) for kind in (SIGNED, UNSIGNED, WORDS)))
SMALL = st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=8)


def holders(values: list[Any]) -> list[Any]:
    r"""The same ids in all that may hold them exactly."""
    words = isinstance(values[0], str)
    unsigned = not words and max(values) >= 2**63
    name = "string" if words else "uint64" if unsigned else "int64"
    nullable = {"string": "string", "uint64": "UInt64", "int64": "Int64"}[name]
    arrow = pa.array(values, getattr(pa, name)())
    coded = arrow.dictionary_encode()
    out = [
        values,
        tuple(values),
        dict.fromkeys(values).keys() if len({*values}) == len(values) else values,
    ]
    out += [pd.Index(values), pd.Series(values, dtype=object), np.array(values, dtype=object)]
    out += [pd.Series(values, dtype=nullable), pd.Series(pd.Categorical(values))]
    out += [arrow, pa.chunked_array([arrow]), list(arrow), coded]
    out += [part.to_pandas(types_mapper=pd.ArrowDtype) for part in (arrow, coded)]
    if not words:
        plain = np.array(values, dtype=name)
        out += [plain, pd.Series(plain), [np.array(x) for x in plain], list(plain)]
        out += [[Decimal(x) for x in values]]
        out += [] if unsigned else [torch.tensor(values), list(torch.tensor(values))]
    return out


@given(SETS)
def test_ids_are_the_same_whatever_holds_them(values: list[Any]) -> None:
    for held in holders(values):
        assert exact_ids(held, "it").tolist() == values
    assert exact_ids(values[0], "it").tolist() == values[:1]


@given(st.lists(SURROGATES, min_size=1, max_size=5))
def test_halves_of_characters_are_ids_too(values: list[str]) -> None:
    index = exact_ids(values, "it")
    assert index.tolist() == values
    assert rows_of(index, index.unique()).tolist() == index.unique().get_indexer(index).tolist()
    assert appended(pd.Index(["a"]), index, "it").tolist() == ["a", *values]


@given(SMALL)
def test_whole_floats_below_2_53_are_integers(values: list[int]) -> None:
    for dtype in ("float64", "Float64", "double[pyarrow]"):
        found = exact_ids(pd.Series(values, dtype="float64").astype(dtype), "it")
        assert found.tolist() == values and found.dtype == np.int64
    assert exact_ids(torch.tensor(values, dtype=torch.double), "it").tolist() == values
    assert exact_ids([float(values[0]), *values], "it").tolist() == [values[0], *values]


@pytest.mark.parametrize(
    ("dtype", "bits"), [("float64", 53), ("Float64", 53), ("float32", 24), ("float[pyarrow]", 24)]
)
def test_floats_that_several_integers_became_are_refused(dtype: str, bits: int) -> None:
    below, beyond = ([1.0, sign * (2.0**bits - less)] for sign, less in ((-1, 1), (-1, 0)))
    assert exact_ids(pd.Series(below, dtype=dtype), "it").tolist() == [1, 1 - 2**bits]
    for held in (pd.Series(beyond, dtype=dtype), pd.Series([*beyond, None], dtype=dtype)):
        with pytest.raises(ValueError, match=rf"^it, row 1 .*beyond 2\*\*{bits},.*dtype=str"):
            exact_ids(held, "it")


@pytest.mark.parametrize(
    ("dtype", "bits"), [(torch.float32, 24), (torch.bfloat16, 8), (np.float16, 11)]
)
def test_narrow_floats_hold_fewer_integers(dtype: Any, bits: int) -> None:
    def make(x: float) -> Any:
        return torch.tensor([x], dtype=dtype) if isinstance(dtype, torch.dtype) else [dtype(x)]

    assert exact_ids(make(2.0**bits - 1), "it").tolist() == as_list(make(2.0**bits - 1))
    with pytest.raises(ValueError, match=rf"beyond 2\*\*{bits}"):
        exact_ids(make(2.0**bits), "it")


INTEGERS = st.sampled_from(["int64", "Int64", "int64[pyarrow]", "uint64", "UInt64", object])


def column_of(values: list[int], dtype: Any) -> pd.Index:
    r"""Integers in a type, or in Python's own where it does not hold them."""
    try:
        return exact_ids(pd.Series(values, dtype=dtype), "it")
    except (OverflowError, pa.ArrowInvalid, TypeError):
        return exact_ids(values, "it")


@given(st.one_of(SIGNED, UNSIGNED), st.one_of(SIGNED, UNSIGNED), INTEGERS, INTEGERS)
def test_integers_are_found_by_all_64_bits(one: int, other: int, a: Any, b: Any) -> None:
    near = other + 1 if other < 2**63 - 1 else other - 1
    known, asked = column_of([one], a), column_of([other, near], b)
    assert rows_of(asked, known).tolist() == [0 if x == one else -1 for x in (other, near)]
    assert rows_of(known, asked).tolist() == [
        [other, near].index(one) if one in (other, near) else -1
    ]


@given(st.one_of(SIGNED, UNSIGNED), st.one_of(SIGNED, UNSIGNED), INTEGERS, INTEGERS)
def test_appended_ids_are_exact_or_refused(one: int, other: int, a: Any, b: Any) -> None:
    known, more = column_of([one], a), column_of([other], b)
    if min(one, other) < 0 and max(one, other) >= 2**63:
        with pytest.raises(ValueError, match=r"is no integer of 64 bits beside -"):
            appended(known, more, "it")
    else:
        assert appended(known, more, "it").tolist() == [one, other]


@pytest.mark.parametrize("dtype", ["int8", "uint64", "Int32", "int64[pyarrow]", "str", "string"])
def test_appended_ids_keep_the_type_of_the_known(dtype: str) -> None:
    known = pd.Index(["1", "2"]).astype(dtype)
    for more in ([*known[:1]], [*known[:0]]):
        assert appended(known, exact_ids(more, "it"), "it").dtype == dtype
    if dtype == "int8":
        assert appended(known, pd.Index([300]), "it").tolist() == [1, 2, 300]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, None], r"^it, row 1 \(from 0\): the id is missing \(None\), 1 in all"),
        (pd.Series([None, "a"], dtype="category"), r"row 0 .*missing"),
        (pd.Series([1, None], dtype="Int64"), r"row 1 .*missing \(<NA>\)"),
        (None, r"missing \(None\)"),
        ([1.5, 2.0], r"got floating, such as 1.5\); .astype\(str\)"),
        ([np.inf], r"floating, such as inf"),
        ([Decimal("1E+999999999")], r"decimal"),
        ([Decimal("0.5"), 1], r"mixed types, such as Decimal\('0.5'\) and 1"),
        ([True, 1], r"mixed types, such as True and 1"),
        (np.True_, r"boolean"),
        ([1, "1"], r"mixed types, such as 1 and '1'"),
        (b"a", r"bytes, such as b'a'\); .str.decode\('utf-8'\)"),
        (np.datetime64("2020-01-01", "ns"), r"datetime64"),
        ([("a", 1)], r"got mixed"),
        ([{1}], r"got mixed"),
        (np.ones((2, 2), dtype=int), r"must be \[N\].*got \[2, 2\]"),
        (pd.MultiIndex.from_tuples([(1, 2)]), r"has 2 levels"),
        ({1: 2}, r"one id or several are expected \(got a table or mapping\)"),
        (pd.DataFrame({"item": [1]}), r"one id or several are expected"),
        ([0, 2**64], r"row 1 .*: 18446744073709551616 is no integer of 64 bits; .astype\(str\)"),
        ([-(2**63) - 1], r"is no integer of 64 bits;"),
        ([2**63, -1], r"row 0 .*no integer of 64 bits beside -1;"),
    ],
)
def test_what_is_no_exact_id_is_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exact_ids(values, "it")


def test_a_long_entry_is_shown_by_how_it_begins() -> None:
    assert show(np.int64(3)) == "3"
    assert show("x" * 98) == repr("x" * 98)
    assert show("x" * 99) == "'" + "x" * 79 + "... (101 characters)"


def test_strings_and_integers_do_not_go_together() -> None:
    words, whole, none = pd.Index(["1"]), pd.Index([1]), pd.Index([])
    for index, other in ((words, words), (whole, whole), (none, whole), (words, none)):
        check_same_kind(index, "a", other, "b")
    with pytest.raises(
        ValueError, match=r"^a holds strings such as '1', b holds integers such as 1;"
    ):
        check_same_kind(words, "a", whole, "b")
    assert rows_of(words, whole).tolist() == [-1]


NUMBERED = st.lists(st.integers(1, 10**6), min_size=2, max_size=9, unique=True)
SPELLINGS = {
    "upper and lower case": (lambda x: f"b{x}", str.upper),
    "spaces around them": (str, lambda x: f" {x}"),
    "leading zeros": (str, lambda x: x.zfill(9)),
    "a decimal point": (str, lambda x: f"{x}.0"),
    "the prefix 'item:'": (str, lambda x: f"item:{x}"),
    "the suffix '_v2'": (str, lambda x: f"{x}_v2"),
    "how accents": (lambda x: f"\u00e9{x}", lambda x: unicodedata.normalize("NFD", x)),
}


@given(NUMBERED, st.sampled_from(sorted(SPELLINGS)), st.booleans())
def test_what_ids_differ_by_is_said(numbers: list[int], by: str, flip: bool) -> None:
    first, change = SPELLINGS[by]
    here = [first(str(x)) for x in numbers]
    sides = [pd.Index(here), pd.Index([change(x) for x in here][::-1])]
    assert difference(*sides[:: -1 if flip else 1]).startswith(f"; they differ by {by}")
    with pytest.raises(
        ValueError, match=r"^a and b have no id in common: '.* and '.* here"
    ) as error:
        shared(sides[0], "a", sides[1], "b")
    assert all(repr(x) in str(error.value) for x in [*sides[0][:2], *sides[1][:2]])


def test_two_differences_are_said_together_and_none_is_made_up() -> None:
    assert difference(pd.Index(["A1 "]), pd.Index(["a1"])).endswith(
        "upper and lower case and spaces around them"
    )
    assert difference(pd.Index(["a", "b"]), pd.Index(["c", "d"])) == ""
    assert difference(pd.Index([1, 2]), pd.Index([11, 12])) == ""


@given(st.sets(SIGNED, min_size=1), st.sets(SIGNED, min_size=1))
def test_the_share_is_that_of_the_smaller_set(a: set[int], b: set[int]) -> None:
    common = 7  # in both, so that no pair of sets is refused
    one, other = {*a, common}, {*b, common}
    found = shared(pd.Index(sorted(one)), "a", pd.Index(sorted(other)), "b")
    assert found == pytest.approx(len(one & other) / min(len(one), len(other)))


@pytest.mark.parametrize(
    "values",
    [[Decimal("sNaN"), 1], torch.ones(2).to_sparse(), torch.empty(2, device="meta")],
    ids=["signalling NaN", "sparse", "meta"],
)
def test_what_is_no_plain_number_is_refused(values: Any) -> None:
    with pytest.raises(ValueError, match="ids"):
        exact_ids(values, "ids")
