from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from gtc_pyg.functional import to_csr
from gtc_pyg.nn import BPR, RankingLoss, SampledSoftmax

USER_EMB = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
ITEM_EMB = torch.tensor([[1.0, 1.0], [3.0, -1.0], [0.0, 0.5], [-1.0, 0.0]])
# Scores: user 0 has 1, 3, 0, -1; user 1 has 2, -2, 1, 0.


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def known(*pairs: tuple[int, int]) -> Tensor:
    r"""The users' items, CSR ``[2, 4]``."""
    user, item = torch.tensor(pairs).t()
    return to_csr(torch.stack([item, user]), 2, 4)


def test_bpr_by_hand() -> None:
    loss = BPR()(USER_EMB, ITEM_EMB, ids(0, 1), ids(1, 0), ids(0, 1))
    # Margins: 3 - 1 and 2 - (-2).
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-4))) / 2
    assert loss.item() == pytest.approx(expected)


def test_bpr_ignores_who_has_what() -> None:
    given = USER_EMB, ITEM_EMB, ids(0, 1), ids(1, 0), ids(0, 1)
    assert BPR()(*given, known((0, 0), (1, 1))) == BPR()(*given)


def test_softmax_by_hand() -> None:
    # Negatives 0, 2, 3 of which user 0 has item 2, and user 1 has items 0 and 3.
    own = known((0, 1), (0, 2), (1, 0), (1, 3))
    loss = SampledSoftmax(3)(USER_EMB, ITEM_EMB, ids(0, 1), ids(1, 0), ids(0, 2, 3), own)
    of_user_0 = math.log(1 + (math.exp(1) + math.exp(-1)) / math.exp(3))
    of_user_1 = math.log(1 + math.exp(1) / math.exp(2))
    assert loss.item() == pytest.approx((of_user_0 + of_user_1) / 2)


def test_softmax_takes_the_first_negatives_and_each_once() -> None:
    of_user_0 = known((0, 1), (1, 0))
    given = USER_EMB, ITEM_EMB, ids(0, 0, 0), ids(1, 1, 1)
    few = SampledSoftmax(2)(*given, ids(2, 2, 3), of_user_0)
    # Item 3 is beyond the first two; item 2 stands there twice and counts once.
    assert few.item() == pytest.approx(math.log(1 + math.exp(0 - 3)))
    more = SampledSoftmax(1024)(*given, ids(2, 2, 3), of_user_0)
    assert more.item() == pytest.approx(math.log(1 + (math.exp(0) + math.exp(-1)) / math.exp(3)))


@pytest.mark.parametrize("loss", [BPR(), SampledSoftmax(3)])
def test_gradients_reach_users_and_items(loss: RankingLoss) -> None:
    user_emb, item_emb = (x.double().requires_grad_() for x in (USER_EMB, ITEM_EMB))
    given = ids(0, 1, 1), ids(1, 0, 0), ids(0, 2, 3), known((0, 1), (1, 0))
    assert torch.autograd.gradcheck(lambda u, i: loss(u, i, *given), (user_emb, item_emb))


@pytest.mark.parametrize("scale", [0.0, -1.0, 1e-40, 1e40, math.inf, math.nan])
def test_a_scale_out_of_range_is_named(scale: float) -> None:
    for make in (BPR, lambda s: SampledSoftmax(5, s)):
        told = re.escape(f"'scale' must be from 1e-6 to 1e6 (got {scale})")
        with pytest.raises(ValueError, match=told):
            make(scale)


def test_other_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'num_negatives' must be at least 2 \(got 1\)"):
        SampledSoftmax(1)
    with pytest.raises(ValueError, match=r"'known' must be the users' items, CSR \[N, I\]"):
        SampledSoftmax(2)(USER_EMB, ITEM_EMB, ids(0), ids(1), ids(0))


def test_repr_names_the_settings() -> None:
    assert repr(BPR(2)) == "BPR(scale=2.0)"
    assert repr(SampledSoftmax(5, 0.5)) == "SampledSoftmax(num_negatives=5, scale=0.5)"
    assert (BPR().num_negatives, SampledSoftmax(5).num_negatives) == (1, 5)
