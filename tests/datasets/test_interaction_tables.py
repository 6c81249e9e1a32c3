from __future__ import annotations

from dataclasses import replace
from typing import Any

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


def test_users_without_training_are_left_out_and_counted() -> None:
    lines = {split: torch.arange(3) + 10 for split in ("train", "val", "test")}
    splits = {
        "train": torch.tensor([[0, 1, 1], [0, 1, 2]]),
        "val": torch.tensor([[2, 0, 3], [0, 2, 1]]),
        "test": torch.tensor([[1, 2, 2], [0, 1, 2]]),
    }
    given = replace(tables(), splits=splits, lines=lines, num_users=5)
    found, left_out = given.without_untrained_users()
    assert left_out == 2 and found.num_users == 5
    expected = {"train": splits["train"], "val": [[0], [2]], "test": [[1], [0]]}
    for split, edge_index in expected.items():
        assert torch.equal(found.splits[split], torch.as_tensor(edge_index))
    assert found.lines["val"].tolist() == [11] and found.lines["test"].tolist() == [10]
    published, none = replace(given, untrained_users=True).without_untrained_users()
    assert published.splits is splits and none == 0
    with pytest.raises(
        ValueError, match=r"^val, line 10: no user of the val split .*such as user 2"
    ):
        replace(given, splits={**splits, "val": splits["val"][:, :1]}).without_untrained_users()


def test_content_is_required_or_the_number_of_items() -> None:
    bare = replace(tables(), features={}, item_rows=3)
    bare.validate()
    assert bare.to_hetero_data()["item"].num_nodes == 3
    with pytest.raises(ValueError, match=r"item id 2 in the train split, expected 0 to 1"):
        replace(bare, item_rows=2).validate()
    with pytest.raises(ValueError, match="'features' must hold content"):
        replace(tables(), features={}).validate()


HAS = torch.tensor([True, False, True])


def test_masks_and_weights_reach_the_graph() -> None:
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 4.0]])
    weight = torch.tensor([0.5, 1.0, 2.0])
    full = replace(tables(), features={"text": x}, masks={"text": HAS}, train_weight=weight)
    full.validate()
    data = full.to_hetero_data()
    assert torch.equal(data["item"].has_text, HAS)
    for edge_type in data.edge_types:
        assert torch.equal(data[edge_type].weight, weight)
    assert "has_text" not in tables().to_hetero_data()["item"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": {"image": HAS}}, r"a mask of 'image', which is no modality"),
        ({"masks": {"text": HAS.float()}}, r"mask of 'text' is torch.float32 \[3\], expected bool"),
        ({"masks": {"text": HAS[:2]}}, r"torch.bool \[2\], expected bool \[3\]"),
        ({"masks": {"text": HAS}}, r"item 1 has content of 'text' though the mask says that it"),
        ({"train_weight": torch.ones(2)}, r"the weights are torch.float32 \[2\], .* float \[3\]"),
        ({"train_weight": torch.ones(3).long()}, r"the weights are torch.int64 \[3\], .* float"),
        ({"train_weight": torch.tensor([1.0, 0.0, 1.0])}, r"train: .* interaction 1 is 0.0, exp"),
        ({"train_weight": torch.tensor([1.0, 1.0, torch.inf])}, r"interaction 2 is inf, expected"),
    ],
)
def test_wrong_masks_and_weights_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tables(), **change).validate()
