r"""What of an item's content mattered to a user, by taking it away."""

from __future__ import annotations

import torch
from torch import Tensor

from gtc_pyg.graph import EdgeIndexDict, EdgeWeightDict, Features
from gtc_pyg.graph.content import content_of, present_rows
from gtc_pyg.models import GTC

__all__ = ["filter_relevance", "filter_share", "score_share"]


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
        >>> model = GTC(30, 20, {"image": 32}, num_item_layers=0, heads=[])
        >>> content = {"image": data["item"].x_image}
        >>> filter_relevance(model, content, data.edge_index_dict, "image", slice(0, 8)).shape
        torch.Size([30])
    """
    graph, other = model.csr_graph(edge_index_dict), _erase(model, features, name, columns)
    whole = model.filter_content(features, graph)[name]
    gate = whole.gate
    _check_of(model, "gate_of", gate_of)
    if gate is not None and gate_of is not None:
        gate = gate[gate_of]
    erased = model.filter_content(other, graph)[name]
    items = torch.arange(model.num_items, device=whole.x.device)
    out = []
    for users in torch.arange(model.num_users, device=items.device).split(256):
        whole_of, erased_of = (
            f._replace(gate=gate).for_pairs(users.view(-1, 1), items) for f in (whole, erased)
        )
        out.append((whole_of - erased_of).norm(dim=-1).mean(dim=-1).expand(users.numel()))
    return torch.cat(out)


@torch.no_grad()
def filter_share(
    model: GTC,
    features: Features,
    edge_index_dict: EdgeIndexDict,
    name: str,
    filter_of: Tensor | None = None,
    edge_weight_dict: EdgeWeightDict | None = None,
) -> Tensor:
    r"""The share of the variance of a user's scores that goes when their filter drops a modality.

    .. math:: \frac{\mathrm{cov}_i(y_{ui}, \; y_{ui} - y'_{ui})}{\mathrm{var}_i(y_{ui})},

    with :math:`y'` the scores where the modality has no weight for the user, :math:`a_u^m = 0`.
    Items keep all their content, unlike in :func:`score_share`. A part of it is not the filter's
    doing: what the items of a user have in common. Less the mean over ``filter_of`` it is.

    Args:
        model: A trained GTC.
        features: Content of each modality ``[I, F_m]``.
        edge_index_dict: As in :meth:`~gtc_pyg.models.GTC.forward`.
        name: The modality.
        filter_of: Whose gates and weights of modalities each user is given ``[U]``; their own where
            ``None``. What their own add to the mean over permutations is due to the user.
        edge_weight_dict: As in :meth:`~gtc_pyg.models.GTC.forward`.

    Returns:
        ``[U]``.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> model = GTC(30, 20, {"image": 32}, num_item_layers=0, heads=[])
        >>> content = {"image": data["item"].x_image}
        >>> filter_share(model, content, data.edge_index_dict, "image").shape
        torch.Size([30])
    """
    _check_name(model, name)
    _check_of(model, "filter_of", filter_of)
    graph = model.csr_graph(edge_index_dict, edge_weight_dict)
    filtered = model.filter_content(features, graph)
    if filter_of is not None:
        for key, f in filtered.items():
            gate = None if f.gate is None else f.gate[filter_of]
            filtered[key] = f._replace(gate=gate, weight=f.weight[filter_of])
    silent = filtered[name]._replace(weight=torch.zeros_like(filtered[name].weight))
    whole, other = (
        model.with_heads(*model.after_filter(f, graph)[:2], graph)
        for f in (filtered, {**filtered, name: silent})
    )
    return _share(whole, other)


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
    return _share(model(features, graph), model(_erase(model, features, name, columns), graph))


def _share(whole: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Of the variance of each user's scores, what the other scores lack ``[U]``."""
    (user_emb, item_emb), (other_user, other_item) = whole, other
    out = []
    for users in torch.arange(user_emb.size(0), device=user_emb.device).split(1024):
        score = user_emb[users] @ item_emb.t()
        change = score - other_user[users] @ other_item.t()
        centred = score - score.mean(dim=1, keepdim=True)
        out.append((change * centred).mean(dim=1) / centred.pow(2).mean(dim=1).clamp(min=1e-30))
    return torch.cat(out)


def _erase(model: GTC, features: Features, name: str, columns: slice | Tensor) -> dict[str, Tensor]:
    """The content with the mean of the items that have it in these columns."""
    _check_name(model, name)
    chosen = torch.arange(features[name].size(1))[columns] if name in features else None
    if chosen is not None and chosen.numel() == 0:
        raise ValueError(f"'columns' must select some of {features[name].size(1)} (got {columns})")
    x = content_of(features, name, model.num_items).clone()
    x[:, columns] = x[present_rows(features, name)][:, columns].mean(dim=0)
    return {**features, name: x}


def _check_name(model: GTC, name: str) -> None:
    if name not in model.modalities:
        raise ValueError(f"'name' must be one of {list(model.modalities)} (got {name!r})")


def _check_of(model: GTC, argument: str, users: Tensor | None) -> None:
    if users is not None and users.shape != (model.num_users,):
        raise ValueError(f"'{argument}' must be [{model.num_users}] (got {list(users.shape)})")
