from __future__ import annotations

from collections.abc import Callable

import torch

from gtc_pyg.models import ItemBias, LightGCN
from tests.models.graphs import arguments


def test_it_is_added_to_all_scores_of_an_item(planted: Callable) -> None:
    graph = planted()
    torch.manual_seed(0)
    plain = LightGCN(graph.num_users, graph.num_items, 8)
    model = LightGCN(graph.num_users, graph.num_items, 8, heads=[ItemBias()])
    assert (model.item_bias.weight == 0).all() and plain.item_bias is None
    model.load_state_dict(plain.state_dict(), strict=False)
    bias = torch.nn.init.normal_(model.item_bias.weight).view(-1)
    (user, item), (with_user, with_item) = (m(*arguments(graph)) for m in (plain, model))
    torch.testing.assert_close(with_user @ with_item.t(), user @ item.t() + bias)


def test_the_loss_sees_it_and_trains_it(planted: Callable, batch_of: Callable) -> None:
    graph = planted()
    model = LightGCN(graph.num_users, graph.num_items, 8, heads=[ItemBias()])
    user, pos, neg = (ids[:1] for ids in batch_of(graph))
    model.loss(user, pos, neg, *arguments(graph))["ranking"].backward()
    grad = model.item_bias.weight.grad.view(-1)
    assert set(grad.nonzero().view(-1).tolist()) == {int(pos), int(neg)}
    assert grad[pos] < 0 < grad[neg]


def test_reset_puts_it_back_to_zero() -> None:
    head = ItemBias()
    head.bind(3, 4)
    torch.nn.init.ones_(head.bias.weight)
    head.reset_parameters()
    assert (head.bias.weight == 0).all()
