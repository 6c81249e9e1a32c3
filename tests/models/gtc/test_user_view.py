from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.models.gtc.user_view import UserView, directions_of_ids
from tests.models.filters import filter_of, items_of, run, training_csr
from tests.models.graphs import csr_of, seeded, with_edges


def test_a_user_is_seen_through_the_mean_content_of_their_items(planted: Callable) -> None:
    graph = with_edges(planted(), planted().edge_index_dict[USER_TO_ITEM][:, 9:])
    model = filter_of(graph)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    for name, out in run(model, graph)[0].items():
        for u in range(graph.num_users):
            mean = torch.stack([torch.zeros(8), *out.x[item[user == u]]]).sum(dim=0)
            mean = mean / max(1, int((user == u).sum()))
            expected = model.views[name](F.layer_norm(mean, (8,)))
            torch.testing.assert_close(out.user[u], expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(out.gate[u], model.denoisers[name].gate(expected))


def test_ids_are_part_of_a_view_where_asked_for(planted: Callable) -> None:
    graph = planted()
    csr, item_emb = training_csr(graph), items_of(graph).requires_grad_()
    user_emb = torch.randn(graph.num_users, 8, generator=seeded()).requires_grad_()
    model = filter_of(graph, user_ids=True)
    filtered = model(graph.features, item_emb, csr, user_emb=user_emb)
    mean = csr[ITEM_TO_USER].to_dense()
    mean = mean / mean.sum(1, keepdim=True).clamp(min=1)
    for name, out in filtered.items():
        content = F.layer_norm(mean @ out.x, (8,))
        ids = F.normalize(user_emb) + F.normalize(mean @ F.normalize(item_emb))
        view = model.views[name](torch.cat([content, F.layer_norm(ids, (8,))], dim=1))
        torch.testing.assert_close(out.user, view, rtol=1e-4, atol=1e-4)
        out.user.sum().backward(retain_graph=True)
    assert user_emb.grad is None and item_emb.grad is None
    with pytest.raises(ValueError, match="'user_emb' must be given where 'user_ids' is on"):
        model(graph.features, item_emb, csr)


@pytest.mark.parametrize("user_ids", [False, True])
def test_weights_come_from_the_seed_and_rows_are_normalised(user_ids: bool) -> None:
    view, other = UserView(8, user_ids), UserView(8, user_ids)
    assert next(view.parameters()).shape == (8, 16 if user_ids else 8)
    for module in (view, other):
        torch.manual_seed(3)
        module.reset_parameters()
    x = torch.randn(5, 16 if user_ids else 8)
    assert torch.equal(view(x), other(x))
    torch.testing.assert_close(view(x).mean(dim=1), torch.zeros(5), atol=1e-6, rtol=0)


def test_of_some_users_are_the_rows_of_all(planted: Callable) -> None:
    graph, user = planted(), torch.tensor([2, 31, 59])
    csr, view = csr_of(graph), UserView(8, user_ids=True)
    x, user_emb = torch.randn(40, 8, requires_grad=True), torch.randn(60, 8)
    d = [directions_of_ids(csr, some, user_emb, F.normalize(x.detach())) for some in (None, user)]
    torch.testing.assert_close(d[1], d[0][user])
    every, few = (view.of(x, csr, some, ids) for some, ids in zip((None, user), d, strict=True))
    torch.testing.assert_close(few, every[user])
    few.sum().backward()
    assert x.grad is None
