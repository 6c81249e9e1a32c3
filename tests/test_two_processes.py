r"""A pair that waits for ever is ended, and its stacks are shown."""

import threading
import warnings

import pytest

from tests.two_processes import in_two_processes


def waits(number: int) -> None:
    threading.Event().wait()


def fails(number: int) -> None:
    if number:
        raise KeyError("of the second process")


def number(number: int) -> int:
    return number


def test_both_give_what_they_found(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert in_two_processes(number, tmp_path) == [0, 1]


def test_what_waits_twice_is_an_error_with_the_stacks(tmp_path):
    with (
        pytest.warns(RuntimeWarning, match="took over 2 s"),
        pytest.raises(TimeoutError, match=r"(?s)in waits.*in waits"),
    ):
        in_two_processes(waits, tmp_path, limit=2)


def test_an_error_of_a_process_is_raised(tmp_path):
    with pytest.raises(Exception, match="of the second process"):
        in_two_processes(fails, tmp_path)
