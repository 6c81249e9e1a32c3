r"""Ways to hold out interactions. Each returns a label per interaction.

0 is training, 1 validation and 2 test, the order of
:data:`~gtc_pyg.datasets.interaction_tables.SPLITS`. No user is left without a training interaction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gtc_pyg.functional import takes_numbers

TRAIN, VAL, TEST, LEFT_OUT = 0, 1, 2, -1
RATIOS = (0.8, 0.1, 0.1)


def check_ratios(ratios: Sequence[float]) -> tuple[float, float, float]:
    r"""Three positive shares that sum to one, or a :class:`ValueError`."""
    try:
        shares = tuple(float(share) for share in ratios)
    except (TypeError, ValueError):
        shares = ()
    fine = len(shares) == 3 and all(share > 0 for share in shares)
    if not fine or abs(sum(shares) - 1) > 1e-6:
        total = f", which sum to {sum(shares):g}" if shares else ""
        raise ValueError(
            f"'ratios' must be three positive shares, training, validation and test, that sum to 1 "
            f"(got {shares or ratios!r}{total})"
        )
    return shares[0], shares[1], shares[2]


@takes_numbers
def random_split(user: np.ndarray, ratios: Sequence[float] = RATIOS, seed: int = 0) -> np.ndarray:
    r"""At random, for each user on their own.

    Of :math:`n` interactions :math:`\lfloor r n \rfloor` go to validation and to test, for their
    ratio :math:`r`, or one where that is none. Training keeps the rest and never less
    than one: a user of one has it in training, one of two has nothing in validation.

    Args:
        user (numpy.ndarray): ``[E]``, the user of each interaction, an integer from 0.
        ratios (sequence of float): Shares of training, validation and test.
            (default: :obj:`(0.8, 0.1, 0.1)`)
        seed (int): The seed; the outcome also depends on the order of the interactions.
            (default: :obj:`0`)

    Returns:
        Labels ``[E]``, int64.

    Raises:
        ValueError: If :obj:`ratios` are not three positive shares that sum to one.
    """
    _, val, test = check_ratios(ratios)
    num_val, num_test = _held_out(np.bincount(user), val, test)
    rng = np.random.default_rng(seed)
    return _label(user, rng.random(user.size), num_val, num_test)


def leave_last_out_split(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    r"""Each user's last interaction is test, the one before it validation.

    Of equal times the later in the order given is the later. A user of two has nothing in
    validation, a user of one has it in training.

    Args:
        user (numpy.ndarray): ``[E]``, the user of each interaction, an integer from 0.
        time (numpy.ndarray): ``[E]``, numbers.

    Returns:
        Labels ``[E]``, int64.
    """
    count = np.bincount(user)
    return _label(user, time, (count >= 3).astype(np.int64), (count >= 2).astype(np.int64))


@takes_numbers
def global_time_split(
    user: np.ndarray, time: np.ndarray, ratios: Sequence[float] = RATIOS
) -> np.ndarray:
    r"""Everything before one moment is training, everything from a later one on test.

    The moments are the times before which the shares of :obj:`ratios` of all interactions lie, as
    nearly as equal times allow: interactions of the same time are never parted. Users who have
    nothing in training cannot be trained, and theirs get the label -1: left out.

    Args:
        user (numpy.ndarray): ``[E]``, the user of each interaction, an integer from 0.
        time (numpy.ndarray): ``[E]``, numbers.
        ratios (sequence of float): Shares of training, validation and test.
            (default: :obj:`(0.8, 0.1, 0.1)`)

    Returns:
        Labels ``[E]``, int64, -1 where left out.

    Raises:
        ValueError: If :obj:`ratios` are not three positive shares that sum to one.
    """
    train, val, _ = check_ratios(ratios)
    values, count = np.unique(time, return_counts=True)
    # before[j]: how many interactions come before the j-th moment
    before = np.concatenate([[0], count.cumsum()])
    cuts = [np.abs(before - share * time.size).argmin() for share in (train, train + val)]
    label = np.searchsorted(cuts, np.searchsorted(values, time), side="right").astype(np.int64)
    known = np.zeros(int(user.max(initial=-1)) + 1, dtype=bool)
    known[user[label == TRAIN]] = True
    return np.where(known[user], label, LEFT_OUT)


def _held_out(count: np.ndarray, val: float, test: float) -> tuple[np.ndarray, np.ndarray]:
    # A product such as 0.29 * 100 falls just short of the integer.
    num_val, num_test = (np.floor(share * count + 1e-9).astype(np.int64) for share in (val, test))
    for own, other in ((num_test, num_val), (num_val, num_test)):
        own += (own == 0) & (count - own - other > 1)
    return num_val, num_test


def _label(
    user: np.ndarray, key: np.ndarray, num_val: np.ndarray, num_test: np.ndarray
) -> np.ndarray:
    r"""Of each user's interactions by :obj:`key` the last are test, those before validation."""
    count = np.bincount(user)
    order = np.lexsort((key, user))
    owner = user[order]
    from_end = count.cumsum()[owner] - np.arange(user.size)  # 1 is a user's last
    label = np.full(user.size, TRAIN, dtype=np.int64)
    held_out = np.where(from_end <= (num_val + num_test)[owner], VAL, TRAIN)
    label[order] = np.where(from_end <= num_test[owner], TEST, held_out)
    return label
