r"""What of an item's content mattered to a user, by taking it away."""

from __future__ import annotations

import torch
from torch import Tensor

from gtc_pyg.models import GTC
from gtc_pyg.models.graph_recommender import EdgeIndexDict, EdgeWeightDict, Features

__all__ = ["filter_relevance", "score_share"]


@torch.no_grad()
def filter_relevance(
    model: GTC,
    features: Features,
    edge_index_dict: EdgeIndexDict,
    name: str,
    columns: slice | Tensor = slice(None),
    gate_of: Tensor | None = None,
) -> Tensor:
    r"""How much the content filtered for a user changes when some of its columns are erased.

    .. math:: \frac{1}{I} \sum_i \| \hat x_{ui}(f) - \hat x_{ui}(f') \|,

    :math:`f'` having the mean over the items that have content in the erased columns. The user's
    gate, in the last step, is that of the whole content in both terms: what is compared is content,
    and not what a user is known by. All else is made of the content at hand.

    Args:
        model: A trained GTC.
        features: Content of each modality ``[I, F_m]``.
        edge_index_dict: The interactions, as in :meth:`~gtc_pyg.models.GTC.forward`.
        name: The modality whose columns are erased.
        columns: Which of them; all where not given.
        gate_of: Whose gate filters for each user ``[U]``; their own where ``None``. A permutation
            is the control: what is left is not due to the user.

    Returns:
        ``[U]``. With the conditions ``'item'`` and ``'neighbors'`` the same for all users. Blocks
        differ in how much they tell everybody: to compare them, divide each by its mean over users.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> model = GTC(30, 20, {"image": 32}, num_item_layers=0)
        >>> content = {"image": data["item"].x_image}
        >>> filter_relevance(model, content, data.edge_index_dict, "image", slice(0, 8)).shape
        torch.Size([30])
    """
    graph, other = model.csr_graph(edge_index_dict), _erase(model, features, name, columns)
    whole = model.filter_content(features, graph)[name]
    gate = whole.gate
    if gate_of is not None and gate_of.shape != (model.num_users,):
        raise ValueError(f"'gate_of' must be [{model.num_users}] (got {list(gate_of.shape)})")
    if gate is not None and gate_of is not None:
        gate = gate[gate_of]
    erased = model.filter_content(other, graph)[name]
    items = torch.arange(model.num_items, device=whole.x.device)
    out = []
    for users in torch.arange(model.num_users, device=items.device).split(256):
        whole_of, erased_of = (
            model.filter.for_pairs(name, f._replace(gate=gate), users.view(-1, 1), items)
            for f in (whole, erased)
        )
        out.append((whole_of - erased_of).norm(dim=-1).mean(dim=-1).expand(users.numel()))
    return torch.cat(out)


@torch.no_grad()
def score_share(
    model: GTC,
    features: Features,
    edge_index_dict: EdgeIndexDict,
    name: str,
    columns: slice | Tensor = slice(None),
    edge_weight_dict: EdgeWeightDict | None = None,
) -> Tensor:
    r"""The share of the variance of a user's scores that goes when columns of content are erased.

    .. math:: \frac{\mathrm{cov}_i(y_{ui}, \; y_{ui} - y'_{ui})}{\mathrm{var}_i(y_{ui})},

    with :math:`y'` the scores after erasure (the mean over items instead). Shares of parts that do
    not interact add up to at most one; a share is negative where scores spread more without.

    Args:
        model: A trained GTC.
        features: Content of each modality ``[I, F_m]``.
        edge_index_dict: As in :meth:`~gtc_pyg.models.GTC.forward`.
        name: The modality whose columns are erased.
        columns: Which of them; all where not given.
        edge_weight_dict: As in :meth:`~gtc_pyg.models.GTC.forward`.

    Returns:
        ``[U]``.
    """
    graph = model.csr_graph(edge_index_dict, edge_weight_dict)
    user_emb, item_emb = model(features, graph)
    other_user, other_item = model(_erase(model, features, name, columns), graph)
    out = []
    for users in torch.arange(model.num_users, device=user_emb.device).split(1024):
        score = user_emb[users] @ item_emb.t()
        change = score - other_user[users] @ other_item.t()
        centred = score - score.mean(dim=1, keepdim=True)
        out.append((change * centred).mean(dim=1) / centred.pow(2).mean(dim=1).clamp(min=1e-30))
    return torch.cat(out)


def _erase(model: GTC, features: Features, name: str, columns: slice | Tensor) -> dict[str, Tensor]:
    """The content with the mean of the items that have it in these columns."""
    if name not in model.filter.encoders:
        raise ValueError(f"'name' must be one of {list(model.filter.encoders)} (got {name!r})")
    chosen = torch.arange(features[name].size(1))[columns] if name in features else None
    if chosen is not None and chosen.numel() == 0:
        raise ValueError(f"'columns' must select some of {features[name].size(1)} (got {columns})")
    x, present = (
        model._content(features, name, model.num_items).clone(),
        features.get(f"has_{name}"),
    )
    x[:, columns] = (x if present is None else x[present])[:, columns].mean(dim=0)
    return {**features, name: x}
