import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gtc_pyg.functional import (
    check_ids,
    check_least,
    check_one_of,
    plain_numbers,
    takes_numbers,
    whole_number,
)

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FORMS = {
    "scalar": lambda value, dtype: np.dtype(dtype).type(value),
    "0-d array": lambda value, dtype: np.array(value, dtype=dtype),
    "0-d tensor": lambda value, dtype: torch.tensor(np.array(value, dtype=dtype)),
}


def forms(value, dtype):
    return st.sampled_from([make(value, dtype) for make in FORMS.values()])


@st.composite
def whole_numbers(draw):
    dtype = draw(st.sampled_from(INTEGERS))
    value = draw(st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max))
    return value, draw(forms(value, dtype))


@st.composite
def real_numbers(draw):
    width = draw(st.sampled_from([16, 32, 64]))
    value = draw(st.floats(width=width, allow_nan=False))
    return value, draw(forms(value, f"float{width}"))


@pytest.mark.parametrize("ids", [[], [0], [0, 4], [[4, 1], [0, 2]]])
def test_ids_in_range_pass(ids: list) -> None:
    check_ids(torch.tensor(ids, dtype=torch.long), 5, "'ids' holds")


@pytest.mark.parametrize(("ids", "named"), [([0, 5, 9], 9), ([-3, 2], -3), ([-1, 7], -1), ([5], 5)])
def test_ids_out_of_range_are_named(ids: list[int], named: int) -> None:
    with pytest.raises(ValueError, match=rf"^'ids' holds {named}, expected 0 to 4$"):
        check_ids(torch.tensor(ids), 5, "'ids' holds")


def test_values_that_reach_the_least_pass() -> None:
    check_least(1, k=1, width=7)
    check_least(0)


def test_the_first_value_below_the_least_is_named() -> None:
    with pytest.raises(ValueError, match=r"^'width' must be at least 2 \(got 1\)$"):
        check_least(2, k=2, width=1, depth=0)


@pytest.mark.parametrize("value", [2.0, 2.5, float("inf")])
def test_a_number_that_is_not_whole_is_named(value) -> None:
    with pytest.raises(ValueError, match=rf"^'width' must be a whole number \(got {value}\)$"):
        check_least(2, k=2, width=value)


def test_a_value_that_is_none_of_those_allowed_is_named() -> None:
    check_one_of(("a", "b"), kind="b", other="a")
    with pytest.raises(ValueError, match=r"^'kind' must be 'a', 'b' or 'c' \(got 'd'\)$"):
        check_one_of(("a", "b", "c"), kind="d")


@given(st.one_of(whole_numbers(), real_numbers(), st.booleans().map(lambda b: (b, np.bool_(b)))))
def test_scalars_become_the_number_of_python(pair):
    value, scalar = pair
    assert plain_numbers(scalar) == value
    assert type(plain_numbers(scalar)) is type(value)
    nested = plain_numbers({"a": [scalar, (scalar, None)], "b": "text"})
    assert nested == {"a": [value, (value, None)], "b": "text"}
    assert type(nested["a"][1][0]) is type(value)


@pytest.mark.parametrize("value", ["a", None, np.array([3]), torch.ones(1), np.str_("a"), {1, 2}])
def test_what_is_no_scalar_passes_as_it_is(value):
    assert plain_numbers(value) is value


def test_a_function_gets_plain_numbers_and_keeps_its_signature():
    def scaled(x, k=2, *, name="a"):
        """A docstring."""
        return x, k, name

    taking, x = takes_numbers(scaled), torch.ones(2)
    found = taking(x, np.int64(3), name="b")
    assert found[0] is x and type(found[1]) is int and found[1:] == (3, "b")
    assert inspect.signature(taking) == inspect.signature(scaled)
    assert taking.__doc__ == scaled.__doc__


@given(whole_numbers())
def test_whole_numbers_are_taken_from_the_least_on(pair):
    value, scalar = pair
    found = whole_number(value, k=scalar)
    assert found == value and type(found) is int
    with pytest.raises(ValueError, match=rf"^'k' must be a whole number, at least {value + 1} "):
        whole_number(value + 1, k=scalar)


@pytest.mark.parametrize("value", [2.0, np.float64(2), True, np.bool_(True), "2", None, [2]])
def test_what_is_no_whole_number_is_named(value):
    with pytest.raises(ValueError, match=r"^'k' must be a whole number, at least 1 \(got "):
        whole_number(1, k=value)


@given(whole_numbers())
def test_the_least_may_be_given_in_any_form(pair):
    value, scalar = pair
    check_least(value, k=scalar)
    with pytest.raises(ValueError, match="'k' must be at least"):
        check_least(value + 1, k=scalar)


@pytest.mark.parametrize("value", [float("nan"), np.float32("nan"), torch.tensor(float("nan"))])
def test_nan_is_below_every_least(value):
    with pytest.raises(ValueError, match="'k' must be at least 0"):
        check_least(0, k=value)
