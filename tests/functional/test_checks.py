import pytest
import torch

from gtc_pyg.functional import check_ids, check_least, check_one_of


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


def test_a_value_that_is_none_of_those_allowed_is_named() -> None:
    check_one_of(("a", "b"), kind="b", other="a")
    with pytest.raises(ValueError, match=r"^'kind' must be 'a', 'b' or 'c' \(got 'd'\)$"):
        check_one_of(("a", "b", "c"), kind="d")
