r"""How a trained GTC makes embeddings of items and users that came after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from gtc_pyg.functional import normalize_rows
from gtc_pyg.graph.content import Features
from gtc_pyg.graph.csr_graph import CSRGraph
from gtc_pyg.inductive.item_embedder import ItemSide, without_interactions
from gtc_pyg.inductive.user_embedder import UserSide, propagated

if TYPE_CHECKING:
    from gtc_pyg.models.gtc import GTC


def item_side(model: GTC, features: Features, graph: CSRGraph) -> ItemSide:
    r"""What :class:`~gtc_pyg.inductive.ItemEmbedder` is told: new items are filtered and fused as all
    are, under the ID embedding that is predicted for them, and have no users.

    Args:
        model: The trained model.
        features: Content of the known items.
        graph: The interactions of training.
    """
    ids = model._ids(graph)
    fused = model._fused(model._filter(features, graph, ids, None), ids)
    out = graph.layer_mean(fused, model.num_layers)

    def own(new: Features, item: Tensor) -> list[Tensor]:
        nobody = item.new_zeros(1, item.size(1))
        alone = ids._replace(user=nobody, item=item, unit_user=nobody, unit_item=item)
        known = [f"has_{name}" for name in model.filter.incomplete]  # else the mean is all
        new = {k: x for k, x in new.items() if k in known or not k.startswith("has_")}
        filtered = model._filter(new, without_interactions(item), alone, None)
        return [
            model._fused(filtered, alone)[1:] / (model.num_layers + 1),
            *model._item_factors(filtered),
        ]

    bias = None if model.item_bias is None else model.item_bias.weight
    beside = None
    if model.low_pass is not None:
        beside = model.low_pass.items(graph, model.num_item_layers)
    return ItemSide(out[graph.num_users :], own, ids.unit_item, bias, beside)


def user_side(model: GTC, features: Features, graph: CSRGraph) -> UserSide:
    r"""What :class:`~gtc_pyg.inductive.UserEmbedder` is told: to new users the content of the items,
    which do not know them, is filtered as to all.

    Args:
        model: The trained model.
        features: Content of the items.
        graph: The interactions of training.
    """
    ids = model._ids(graph)
    filtered = model._filter(features, graph, ids, None)
    propagate = propagated(graph, model._fused(filtered, ids), model.num_layers)

    def embed(new: CSRGraph, start: Tensor) -> Tensor:
        of_new = model.filter.of_new_users(filtered, new, ids.unit_item, start)
        low_pass = None if model.low_pass is None else model.low_pass.users(new)
        content = model.filter.for_users(of_new, new)
        return model._users(propagate(new, start), of_new, content, low_pass)

    return UserSide(ids.unit_user, ids.unit_item, embed, normalize_rows)
