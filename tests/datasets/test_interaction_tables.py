from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gtc_pyg.datasets import InteractionTables


def tables() -> InteractionTables:
    splits = {
        "train": torch.tensor([[0, 1, 1], [0, 1, 2]]),
        "val": torch.tensor([[0], [2]]),
        "test": torch.tensor([[1], [0]]),
    }
    return InteractionTables(splits, num_users=2, features={"text": torch.ones(3, 2)})


def test_sound_tables_pass() -> None:
    tables().validate()


def test_training_view_holds_no_held_out_interaction() -> None:
    data = tables().to_hetero_data()
    assert data.edge_types == [("user", "rates", "item"), ("item", "rev_rates", "user")]
    rates, reverse = (data[edge_type].edge_index for edge_type in data.edge_types)
    assert torch.equal(rates, tables().splits["train"])
    assert torch.equal(reverse, rates.flip(0))


@pytest.mark.parametrize(
    ("split", "edge", "message"),
    [
        ("val", [-1, 0], r"user id -1 in the val split"),
        ("val", [2, 0], r"user id 2 in the val split, expected 0 to 1 \(2 users\)"),
        ("test", [0, -2], r"item id -2 in the test split"),
        ("test", [0, 3], r"item id 3 in the test split, expected 0 to 2 \(3 rows of content\)"),
        ("val", [0, 0], r"user 0, item 0 occurs in the train split and in the val split"),
        ("test", [0, 2], r"user 0, item 2 occurs in the val split and in the test split"),
    ],
)
def test_wrong_pairs_are_named(split: str, edge: list[int], message: str) -> None:
    splits = {**tables().splits, split: torch.tensor(edge).view(2, 1)}
    with pytest.raises(ValueError, match=message):
        replace(tables(), splits=splits).validate()


def test_content_is_required() -> None:
    with pytest.raises(ValueError, match="no content"):
        replace(tables(), features={}).validate()
