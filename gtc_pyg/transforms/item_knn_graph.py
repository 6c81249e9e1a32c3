r"""The item-item graph of FREEDOM, from any number of modalities."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform
from torch_geometric.utils import coalesce, degree
from tqdm import tqdm

from gtc_pyg.functional import check_edges, check_least, inner_product_topk, takes_numbers

_CHUNK = 2048  # items per step of the progress bar


class ItemKNNGraph(BaseTransform):
    r"""Adds ``('item', 'similar', 'item')`` with ``edge_weight`` from the items' content.

    From `"A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal
    Recommendation" <https://arxiv.org/abs/2211.06924>`_ (FREEDOM). Row :math:`i` of the binary
    matrix :math:`S_m` marks the :math:`k` items of largest cosine with item :math:`i` in modality
    :math:`m`, itself included. With :math:`d_i` the sum of row :math:`i`,

    .. math::
        S = \sum_m w_m \, D_m^{-1/2} S_m D_m^{-1/2}, \qquad \sum_m w_m = 1

    so each entry of a modality weighs :math:`w_m / k`, and each row of :math:`S` sums to one.
    ``edge_index[0]`` holds the neighbour :math:`j` (source), ``edge_index[1]`` the item :math:`i`
    (destination); edges are sorted by destination and free of duplicates.

    Neighbours are exact, by :func:`gtc_pyg.functional.inner_product_topk`: no matrix of items times
    items exists, whatever their number.

    Where the data has a published graph ``('item', 'similar_<m>', 'item')``, its edges are
    :math:`S_m` as they stand: their cosines and :obj:`k` are not looked at.

    Different from FREEDOM: an item is its own neighbour even where more than :math:`k` items share
    its content, and an item without content (zeros, or ``has_<m>`` false) has itself as its only
    neighbour and is no other item's, so fewer than :math:`k` may be left. So has every item where
    content is the same for all that have it.

    Args:
        k (int): The number of neighbours, the item itself included. (default: :obj:`10`)
        weights (dict, optional): Modality to positive weight; scaled to sum to one. :obj:`None`
            takes all modalities of the data, equally. (default: :obj:`None`)
        progress (bool): Whether to show a progress bar for each modality. (default: :obj:`False`)

    Raises:
        ValueError: If :obj:`k` is less than 1 or more than the number of items, :obj:`weights`
            is empty, a weight is not positive and finite, or the data lacks a modality; as
            :func:`gtc_pyg.functional.check_edges` says of a published graph.
    """

    @takes_numbers
    def __init__(
        self, k: int = 10, weights: Mapping[str, float] | None = None, progress: bool = False
    ) -> None:
        check_least(1, k=k)
        if weights is not None and not weights:
            raise ValueError("'weights' must name at least one modality (got none)")
        for modality, weight in (weights or {}).items():
            if not (weight > 0 and math.isfinite(weight)):
                raise ValueError(
                    f"'weights' at {modality!r} must be positive and finite (got {weight})"
                )
        self.k = k
        self.weights = None if weights is None else dict(weights)
        self.progress = progress

    def forward(self, data: HeteroData) -> HeteroData:
        item = data["item"]
        num_items = item.num_nodes
        if self.k > num_items:
            raise ValueError(f"'k' must be at most the number of items, {num_items} (got {self.k})")
        available = _modalities(data)
        weights = self.weights or dict.fromkeys(available, 1.0)
        unknown = [modality for modality in weights if modality not in available]
        if unknown or not weights:
            raise ValueError(f"unknown modality {unknown}: the data has {available}")

        total = sum(weights.values())
        edge_indices, edge_weights = [], []
        for modality, weight in weights.items():
            edge_type = ("item", f"similar_{modality}", "item")
            if edge_type in data.edge_types:
                edge_index = check_edges(
                    data[edge_type].get("edge_index"),
                    num_items,
                    num_items,
                    f"edge_index of {edge_type}",
                    ("item", "item"),
                )
                edge_index = coalesce(edge_index, num_nodes=num_items)
            else:
                x, mask = item[f"x_{modality}"], item.get(f"has_{modality}")
                if same_everywhere(x, mask):
                    mask = torch.zeros(num_items, dtype=torch.bool, device=x.device)
                edge_index = _cosine_neighbors(x, self.k, mask, modality if self.progress else None)
            inv_sqrt = degree(edge_index[1], num_items).clamp(min=1.0).rsqrt()
            edge_indices.append(edge_index)
            edge_weights.append(weight / total * inv_sqrt[edge_index[0]] * inv_sqrt[edge_index[1]])
        store = data["item", "similar", "item"]
        store.edge_index, store.edge_weight = coalesce(
            torch.cat(edge_indices, dim=1),
            torch.cat(edge_weights),
            num_nodes=num_items,
            reduce="sum",
            sort_by_row=False,
        )
        return data

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}(k={self.k}, weights={self.weights})"


def same_everywhere(x: Tensor, mask: Tensor | None = None) -> bool:
    r"""Whether content is the same for every item that has it, so that none differs from another.

    Args:
        x: Content ``[num_items, F]``.
        mask: Which items have it ``[num_items]``; all where ``None``.
    """
    x = x.detach() if mask is None else x.detach()[mask]
    return x.size(0) == 0 or bool((x == x[0]).all())


def _modalities(data: HeteroData) -> list[str]:
    names = [key[2:] for key in data["item"].keys() if key.startswith("x_")]  # noqa: SIM118
    for source, relation, target in data.edge_types:
        if source == target == "item" and relation.startswith("similar_"):
            names.append(relation.removeprefix("similar_"))
    return list(dict.fromkeys(names))


def _cosine_neighbors(x: Tensor, k: int, mask: Tensor | None, progress: str | None) -> Tensor:
    x = torch.nn.functional.normalize(x.detach().float(), dim=-1)
    present = (x != 0).any(dim=-1)
    if mask is not None:
        present = present & mask
    everyone = torch.arange(x.size(0), device=x.device)
    candidates = everyone[present]
    x, out = x[candidates], [torch.stack([everyone, everyone])]  # an item is its own neighbour
    positions = torch.arange(candidates.numel(), device=x.device).split(_CHUNK)
    for rows in tqdm(positions, progress, disable=progress is None, unit_scale=_CHUNK):
        if k > 1 and rows.numel() > 0:
            own = torch.stack([rows - rows[0], rows])
            neighbors = inner_product_topk(x[rows], x, k - 1, exclude_links=own)[1]
            found = neighbors >= 0
            source = candidates[neighbors.clamp(min=0)][found]
            target = candidates[rows].view(-1, 1).expand_as(found)[found]
            out.append(torch.stack([source, target]))
    return torch.cat(out, dim=1)
