from __future__ import annotations

import gc

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Linear

from gtc_pyg.graph.row_history import RowHistory

NUM = 6


def never() -> torch.Tensor:
    raise AssertionError("rows of all users were made again")


@settings(max_examples=30, deadline=None)
@given(batches=st.lists(st.sets(st.integers(0, NUM - 1), min_size=1), min_size=1, max_size=6))
def test_a_row_is_as_it_was_when_last_given(batches: list[set[int]]) -> None:
    history, module = RowHistory(), Linear(1, 1)
    expected = torch.arange(NUM * 2.0).view(NUM, 2)
    first = torch.tensor([0])
    out = history.rows_of_all(module, "image", first, torch.zeros(1, 2), expected.clone)
    assert torch.equal(out, expected)  # made, not given
    for step, batch in enumerate(batches, start=1):
        user = torch.tensor(sorted(batch))
        rows = torch.full((user.numel(), 2), -float(step), requires_grad=True)
        out = history.rows_of_all(module, "image", user, rows, never)
        expected[user] = -float(step)
        assert torch.equal(out, expected) and not out.requires_grad


def test_modules_and_names_have_rows_of_their_own() -> None:
    history, (one, other), user = RowHistory(), (Linear(1, 1), Linear(1, 1)), torch.tensor([1])
    for value, (module, name) in enumerate([(one, "image"), (one, "text"), (other, "image")]):
        made = torch.full((NUM, 2), float(value))
        history.rows_of_all(module, name, user, torch.zeros(1, 2), made.clone)
    for value, (module, name) in enumerate([(one, "image"), (one, "text"), (other, "image")]):
        out = history.rows_of_all(module, name, user, torch.ones(1, 2), never)
        assert (out[0] == value).all() and (out[1] == 1).all()
    assert len(history) == 2


def test_rows_of_another_type_are_made_again() -> None:
    history, module, user = RowHistory(), Linear(1, 1), torch.tensor([1])
    for dtype in (torch.float, torch.bfloat16, torch.float):
        rows, made = torch.zeros(1, 2, dtype=dtype), torch.ones(NUM, 2, dtype=dtype)
        out = history.rows_of_all(module, "image", user, rows, lambda made=made: made)
        assert out.dtype == dtype and (out == 1).all()


def test_rows_go_with_their_module() -> None:
    history, module = RowHistory(), Linear(1, 1)
    history.rows_of_all(module, "image", torch.tensor([1]), torch.zeros(1, 2), lambda: None)
    del module
    gc.collect()
    assert len(history) == 0
