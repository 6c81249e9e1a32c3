from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gtc_pyg.models import ItemBias, LightGCN, SpectralHead
from gtc_pyg.models.heads import Heads
from tests.models.graphs import arguments


def test_heads_that_losses_see_come_last() -> None:
    heads = Heads([ItemBias(), SpectralHead(3), SpectralHead(2)], 4, 5)
    assert [type(head) for head in heads] == [SpectralHead, SpectralHead, ItemBias]
    assert heads.in_loss == [heads[2]]


def test_the_most_hops_are_those_that_any_head_needs() -> None:
    heads = Heads([SpectralHead(3, num_item_layers=n) for n in (None, 2)], 4, 5)
    assert [heads.num_hops(n) for n in (0, 3)] == [2, 3]
    assert Heads([], 4, 5).num_hops(3) == 0


def test_columns_of_two_heads_of_a_class_add_up(planted: Callable) -> None:
    graph = planted()
    torch.manual_seed(0)
    model = LightGCN(60, 40, 8, heads=[SpectralHead(3), SpectralHead(5, strength=0.5)])
    model.prepare(*arguments(graph)[1:])
    user_emb, item_emb = model(*arguments(graph))
    csr = model.csr_graph(*arguments(graph)[1:])
    score = sum(head.users(csr) @ head.items(csr, 0).t() for head in model.heads)
    torch.testing.assert_close(
        user_emb @ item_emb.t(), user_emb[:, :8] @ item_emb[:, :8].t() + score
    )


def test_what_are_no_heads_and_two_in_the_loss_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'heads' must hold heads \(got Linear\)"):
        LightGCN(4, 5, heads=[torch.nn.Linear(1, 1)])
    for alone in (None, SpectralHead(3)):
        with pytest.raises(ValueError, match="'heads' must be a list of heads"):
            LightGCN(4, 5, heads=alone)
    with pytest.raises(ValueError, match="'heads' may hold one head that losses see"):
        LightGCN(4, 5, heads=[ItemBias(), ItemBias()])


def test_a_head_of_another_model_is_refused() -> None:
    for head in (ItemBias(), SpectralHead(3)):
        LightGCN(4, 5, heads=[head])
        with pytest.raises(ValueError, match="serves another model already"):
            LightGCN(6, 5, heads=[head])


def test_heads_are_a_list_of_different_ones() -> None:
    head = ItemBias()
    for heads, message in ((head, "must be a list of heads"), ([head, head], "one ItemBias twice")):
        with pytest.raises(ValueError, match=message):
            LightGCN(5, 4, heads=heads)
    LightGCN(5, 4, heads=[head])  # a refused head is as it was
