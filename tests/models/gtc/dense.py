r"""The steps 3 to 6 of a GTC with dense matrices, straight from the equations."""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import GTC


def dense(
    model: GTC, graph: SimpleNamespace, content: list[tuple[Tensor, Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    r"""Users and items by the model itself, unscaled.

    Args:
        model: With a :class:`SimilarityGate`.
        graph: Planted.
        content: Of each modality: filtered for the items ``[I, D]``, for the user of each
            interaction ``[E, D]``, and how much users listen to it ``[U]``.
    """
    num_users, num_items = graph.num_users, graph.num_items
    e_user, e_item = (F.normalize(e.weight, dim=-1) for e in (model.user_emb, model.item_emb))
    views = [e_item, *(F.normalize(x_hat, dim=-1) for x_hat, _, _ in content)]
    weight = torch.stack([(e_item * view).sum(-1) for view in views]).softmax(dim=0)
    fused = e_item + sum(w.view(-1, 1) * view for w, view in zip(weight, views, strict=True))

    a = torch.zeros(num_users + num_items, num_users + num_items)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    a[user, item + num_users] = a[item + num_users, user] = 1
    inv_sqrt = a.sum(1).pow(-0.5)
    a, ego = inv_sqrt.view(-1, 1) * a * inv_sqrt, torch.cat([e_user, fused])
    outs = [torch.matrix_power(a, l) @ ego for l in range(model.num_layers + 1)]
    z_user, z_item = (sum(outs) / len(outs)).split([num_users, num_items])
    if model.num_item_layers > 0:
        s = torch.zeros(num_items, num_items)
        source, target = graph.edge_index_dict[SIMILAR_ITEMS]
        s[target, source] = graph.edge_weight_dict[SIMILAR_ITEMS]
        z_item = z_item + torch.matrix_power(s, model.num_item_layers) @ z_item

    for _, pairs, listened in content:
        mean = torch.stack([pairs[user == u].mean(dim=0) for u in range(num_users)])
        p = model.content_filter.strength * listened.view(-1, 1) * F.normalize(mean, dim=-1)
        z_user = z_user + p
    return z_user, z_item
