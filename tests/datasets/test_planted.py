from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest
import torch
from torch import Tensor

from gtc_pyg.datasets import PlantedPreferences

RATES = ("user", "rates", "item")
SPLITS = ("train", "val", "test")


def labels(dataset: PlantedPreferences, split: str) -> Tensor:
    return dataset.view(split)[RATES].edge_label_index


def recall_at_20(dataset: PlantedPreferences, score: Tensor) -> float:
    train, test = labels(dataset, "train"), labels(dataset, "test")
    score = score.clone()
    score[train[0], train[1]] = -torch.inf
    hit = torch.zeros_like(score, dtype=torch.bool).scatter_(1, score.topk(20).indices, True)
    found = torch.zeros(dataset.num_users).index_add_(0, test[0], hit[test[0], test[1]].float())
    count = torch.bincount(test[0], minlength=dataset.num_users)
    return float((found[count > 0] / count[count > 0]).mean())


def test_same_seed_same_data_and_other_seed_other_data() -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - shows that global states play no part
    first = PlantedPreferences(seed=3)
    torch.manual_seed(2)
    second, other = PlantedPreferences(seed=3), PlantedPreferences(seed=4)
    for name in first.modalities:
        assert torch.equal(first.features[name], second.features[name])
        assert not torch.equal(first.features[name], other.features[name])
    for split in SPLITS:
        assert torch.equal(labels(first, split), labels(second, split))
    for key in ("preferred_modality", "preferred_block"):
        assert torch.equal(first[0]["user"][key], second[0]["user"][key])
    train, others = labels(first, "train"), labels(other, "train")
    assert train.shape != others.shape or not torch.equal(train, others)


def test_shapes() -> None:
    dataset = PlantedPreferences(50, 40, ("a", "b", "c"), num_blocks=3, block_dim=5, mean_degree=8)
    user = dataset[0]["user"]
    assert [tuple(x.shape) for x in dataset.features.values()] == [(40, 15)] * 3
    assert user.preferred_modality.shape == (50,)
    assert user.preferred_block.shape == (50, 3)
    assert set(user.preferred_modality.tolist()) == {0, 1, 2}
    assert dataset.block_slices == [slice(0, 5), slice(5, 10), slice(10, 15)]
    assert dataset.utility(torch.tensor([3, 7])).shape == (2, 40)
    assert torch.equal(dataset.utility(torch.tensor([7]))[0], dataset.utility()[7])


@pytest.mark.parametrize("seed", range(3))
def test_every_user_is_in_every_split(seed: int) -> None:
    dataset = PlantedPreferences(seed=seed)
    count = torch.stack([torch.bincount(labels(dataset, s)[0], minlength=600) for s in SPLITS])
    enough = count.sum(0) >= 5
    assert enough.float().mean() > 0.99
    assert (count[:, enough] >= 1).all()
    share = count.sum(1) / count.sum()
    assert share[0] == pytest.approx(0.8, abs=0.02)
    assert share[1] == share[2]


def test_planted_utility_ranks_far_better_than_popularity() -> None:
    dataset = PlantedPreferences()
    popularity = torch.bincount(labels(dataset, "train")[1], minlength=300).float()
    oracle = recall_at_20(dataset, dataset.utility())
    popular = recall_at_20(dataset, popularity.expand(600, -1))
    assert oracle > 0.7
    assert oracle > 3 * popular


def test_utility_follows_its_equation() -> None:
    dataset = PlantedPreferences(30, 40, num_blocks=2, block_dim=3, mean_degree=8, minor_weight=0.3)
    user = dataset[0]["user"]
    utility = dataset.utility()
    # Utility is linear in the preferred blocks alone: least squares on them leaves no residual.
    for u in range(30):
        blocks = [
            x[:, dataset.block_slices[int(user.preferred_block[u, m])]]
            for m, x in enumerate(dataset.features.values())
        ]
        design = torch.cat(blocks, dim=1)
        weight = torch.linalg.lstsq(design, utility[u, :, None]).solution[:, 0]
        assert torch.allclose(design @ weight, utility[u], atol=1e-4)
        norm = torch.stack([part.norm() for part in weight.split(3)])
        expected = torch.full((2,), 0.3)
        expected[user.preferred_modality[u]] = 1.0
        assert torch.allclose(norm, expected, atol=1e-3)


def test_content_of_a_users_items_agrees_in_the_planted_block() -> None:
    dataset = PlantedPreferences()
    train, user = labels(dataset, "train"), dataset[0]["user"]
    preferred: list[Tensor] = []
    others: list[Tensor] = []
    for m, x in enumerate(dataset.features.values()):
        x = x - x.mean(0)
        for b, block in enumerate(dataset.block_slices):
            part = torch.nn.functional.normalize(x[:, block], dim=-1)
            total = torch.zeros(600, part.size(1)).index_add_(0, train[0], part[train[1]])
            agreement = total.norm(dim=-1) / torch.bincount(train[0], minlength=600)
            chosen = (user.preferred_modality == m) & (user.preferred_block[:, m] == b)
            preferred.append(agreement[chosen])
            others.append(agreement[user.preferred_block[:, m] != b])
    # Random directions agree to about one over the square root of their number.
    assert torch.cat(preferred).mean() > 0.6
    assert torch.cat(others).mean() < 0.35


def test_noise_is_the_share_blind_to_content() -> None:
    def mean_utility(noise: float) -> float:
        dataset = PlantedPreferences(noise=noise)
        edge = labels(dataset, "train")
        return float(dataset.utility()[edge[0], edge[1]].mean())

    assert mean_utility(0.0) > mean_utility(0.3) > mean_utility(0.9)


def python_calls(**sizes: int) -> int:
    count = 0

    def seen(frame: FrameType, event: str, value: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        PlantedPreferences(**sizes)
    finally:
        sys.setprofile(None)
    return count


def test_building_calls_grow_with_users_not_pairs() -> None:
    calls = python_calls(num_users=200, num_items=100)
    assert python_calls(num_users=800, num_items=400) < 5 * calls


def test_shared_data_comes_as_a_copy(planted_dataset: Callable[..., PlantedPreferences]) -> None:
    planted_dataset()[0]["item"].x_image.zero_()
    assert planted_dataset()[0]["item"].x_image.any()
