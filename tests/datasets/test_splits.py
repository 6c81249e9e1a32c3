from __future__ import annotations

import numpy as np
import pytest

from gtc_pyg.datasets.splits import global_time_split, leave_last_out_split, random_split


def per_user(user: np.ndarray, label: np.ndarray) -> np.ndarray:
    r"""Interactions of each user in training, validation and test."""
    return np.stack(
        [np.bincount(user[label == split], minlength=user.max() + 1) for split in range(3)], 1
    )


def users(*counts: int, seed: int = 0) -> np.ndarray:
    user = np.repeat(np.arange(len(counts)), counts)
    return np.random.default_rng(seed).permutation(user)


def test_shares_of_each_user_worked_by_hand() -> None:
    user = users(0, 1, 2, 3, 5, 10, 19, 20, 100)
    expected = [
        [0, 0, 0],
        [1, 0, 0],
        [1, 0, 1],
        [1, 1, 1],
        [3, 1, 1],
        [8, 1, 1],
        [17, 1, 1],
        [16, 2, 2],
        [80, 10, 10],
    ]
    assert per_user(user, random_split(user)).tolist() == expected
    # 0.29 * 100 is 28.999... in floating point
    assert per_user(user, random_split(user, (0.6, 0.29, 0.11)))[-1].tolist() == [60, 29, 11]


@pytest.mark.parametrize("ratios", [(0.1, 0.45, 0.45), (0.8, 0.1, 0.1), (0.98, 0.01, 0.01)])
def test_training_keeps_something_of_everyone(ratios: tuple[float, ...]) -> None:
    user = users(*range(1, 60))
    counts = per_user(user, random_split(user, ratios))
    assert (counts.sum(1) == np.arange(1, 60)).all()
    assert (counts[:, 0] >= 1).all()


def test_random_split_is_even_and_seeded() -> None:
    user = np.zeros(40, dtype=np.int64)
    labels = np.stack([random_split(user, seed=seed) for seed in range(300)])
    np.testing.assert_allclose((labels == 2).mean(0), 0.1, atol=0.09)  # five standard deviations
    assert (random_split(user, seed=3) == labels[3]).all()
    assert (labels[3] != labels[4]).any()


def test_the_last_of_each_user_are_held_out() -> None:
    user = users(1, 2, 3, 9)
    time = np.random.default_rng(1).permutation(user.size)
    label = leave_last_out_split(user, time)
    assert per_user(user, label).tolist() == [[1, 0, 0], [1, 0, 1], [1, 1, 1], [7, 1, 1]]
    for own in (user == u for u in range(4)):
        ordered = label[own][time[own].argsort()]
        assert (ordered == np.sort(ordered)).all()


def test_of_equal_times_the_later_row_is_the_later() -> None:
    label = leave_last_out_split(np.array([0, 1, 0, 0, 1, 1]), np.array([5, 9, 5, 5, 9, 1]))
    assert label.tolist() == [0, 1, 1, 2, 2, 0]


def test_global_time_parts_at_two_moments() -> None:
    user = np.array([0, 1, 0, 1, 0, 1, 0, 1, 2, 0])
    time = np.array([3, 1, 4, 0, 5, 2, 8, 9, 7, 6])
    label = global_time_split(user, time, (0.6, 0.2, 0.2))
    assert label.tolist() == [0, 0, 0, 0, 0, 0, 2, 2, -1, 1]  # user 2 came after training


def test_equal_times_are_never_parted() -> None:
    rng = np.random.default_rng(0)
    user, time = rng.integers(5, size=200), rng.integers(12, size=200)
    label = global_time_split(user, time)
    for moment in range(12):
        assert len(set(label[time == moment])) == 1
    assert time[label == 0].max() < time[label == 1].min() <= time[label == 1].max()
    assert time[label == 1].max() < time[label == 2].min()


def test_one_moment_leaves_nothing_to_hold_out() -> None:
    label = global_time_split(np.array([0, 1]), np.array([7, 7]))
    assert set(label) <= {0, -1}


@pytest.mark.parametrize(
    "ratios", [(0.8, 0.1), (0.8, 0.1, 0.2), (0.9, 0.1, 0.0), (1.2, -0.1, -0.1), (0.8, 0.1, np.nan)]
)
def test_wrong_ratios_are_named(ratios: tuple[float, ...]) -> None:
    for call in (random_split, lambda u, r: global_time_split(u, u, r)):
        with pytest.raises(ValueError, match=r"'ratios' must be three positive .* that sum to 1"):
            call(np.array([0, 0, 1]), ratios)
