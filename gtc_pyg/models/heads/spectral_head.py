from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Module

from gtc_pyg.functional import check_least, low_pass_factors
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM, CSRGraph


class LowPass(Module):
    r"""A low-pass filter of the interactions, without weights: columns beside learned embeddings.

    Learned embeddings of width :math:`D` keep as many directions of the interactions. This brings
    more of them, as they are, see :func:`~gtc_pyg.functional.low_pass_factors`. A user's columns
    depend on their items alone, so that new users have them; an item's are smoothed over the item
    graph as its embedding is.

    The more users an item has, the longer its columns tend to be, and popular items lead. Length
    normalisation takes that from them (ours): columns are divided by a power of their length,
    ``debiasing``, and all brought back to the mean squared length that they had. With 0 they stay,
    with 1 items differ by direction alone. Below a thousandth of the root mean square length, which
    is what the iterations leave of items that the filter knows nothing of, the divisor stays.

    Args:
        num_items: Number of items :math:`I`.
        channels: Number of columns :math:`K`.
        strength: Factor on the inner products; each side has its root, so that similarities of
            items among themselves know of it, too.
        debiasing: The power, 0 to 1.
        regularization: As in :func:`~gtc_pyg.functional.low_pass_factors`.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> from gtc_pyg.models import LightGCN
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> graph = LightGCN(30, 20).csr_graph(data.edge_index_dict)
        >>> low_pass = LowPass(20, channels=4)
        >>> low_pass.fit(graph, num_item_layers=0)
        >>> scores = low_pass.users(graph) @ low_pass.items(graph, num_item_layers=0).t()
        >>> scores.shape
        torch.Size([30, 20])
    """

    item: Tensor
    told: Tensor
    added: Tensor
    item_scale: Tensor

    def __init__(
        self,
        num_items: int,
        channels: int = 128,
        strength: float = 1.0,
        debiasing: float = 0.0,
        regularization: float = 1.0,
    ) -> None:
        super().__init__()
        check_least(1, low_pass_channels=channels)
        if not 0 <= debiasing <= 1:
            raise ValueError(f"'low_pass_debiasing' must be from 0 to 1 (got {debiasing})")
        if not 0 < regularization < float("inf"):
            raise ValueError(
                f"'low_pass_regularization' must be positive and finite (got {regularization})"
            )
        self.set_strength(strength)
        self.debiasing, self.regularization = debiasing, regularization
        self.register_buffer("item", torch.zeros(num_items, channels))
        self.register_buffer("told", torch.zeros(num_items, channels))
        self.register_buffer("added", torch.tensor(0.0))  # 0 as long as it has seen nothing
        self.register_buffer("item_scale", torch.ones(num_items, 1))

    def set_strength(self, strength: float) -> None:
        r"""Weighs it anew; nothing has to be fitted again."""
        if not 0 < strength < float("inf"):
            raise ValueError(f"'low_pass_strength' must be positive and finite (got {strength})")
        self.strength = strength

    @torch.no_grad()
    def fit(self, graph: CSRGraph, num_item_layers: int) -> None:
        r"""Finds the leading directions.

        Args:
            graph: The interactions of training, and the item graph.
            num_item_layers: How often items are smoothed over it.
        """
        to_item = graph[USER_TO_ITEM]
        item = torch.arange(graph.num_items, device=to_item.device)
        item = item.repeat_interleave(to_item.crow_indices().diff())
        factors = low_pass_factors(
            torch.stack([to_item.col_indices(), item]),
            graph.num_users,
            graph.num_items,
            self.item.size(1),
            graph[SIMILAR_ITEMS] if num_item_layers > 0 else None,
            num_item_layers,
            self.regularization,
        )
        self.item.copy_(factors.item)
        self.told.copy_(factors.told)
        self.added.fill_(factors.added)
        length = graph.with_similar(self.item, num_item_layers).norm(dim=1, keepdim=True)
        self.item_scale.copy_(scale_of(length, self.debiasing))

    def check(self) -> None:
        r"""Refuses to be used before :meth:`fit`."""
        if self.added == 0:
            raise RuntimeError(
                "'low_pass_strength' is above 0 and nothing was fitted: call the model's "
                "fit_low_pass with the graph of training first"
            )

    def items(self, graph: CSRGraph, num_item_layers: int) -> Tensor:
        r"""Columns of the graph's items ``[I, K]``, similar ones added.

        Args:
            graph: Whole or sampled.
            num_item_layers: As it was fitted with.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        scale = self.item_scale if graph.nodes is None else self.item_scale[graph.nodes.item_id]
        return scale * graph.with_similar(self.own_columns(graph), num_item_layers)

    def own_columns(self, graph: CSRGraph) -> Tensor:
        r"""The same before similar ones are added and before ``item_scale``, which is what
        ``debiasing`` comes to.

        Args:
            graph: Whole or sampled.

        Raises:
            RuntimeError: Before :meth:`fit`.
        """
        self.check()
        item = self.item if graph.nodes is None else self.item[graph.nodes.item_id]
        return self.strength**0.5 * item

    def users(self, graph: CSRGraph) -> Tensor:
        r"""Columns of the graph's users ``[U, K]``; zeros without items.

        Args:
            graph: Interactions of any users with the items; sampled ones stand for all.
        """
        told, degree = self.told, graph.num_items_of_users
        if graph.nodes is not None:
            told, degree = told[graph.nodes.item_id], graph.nodes.user_degree
        return self.weight_of(degree).view(-1, 1) * degree.view(-1, 1) * graph.mean_of_items(told)

    def weight_of(self, degree: Tensor) -> Tensor:
        r"""What ``told`` of each item counts for a user of some degree."""
        return self.strength**0.5 * (degree + self.added).rsqrt()


def scale_of(length: Tensor, power: float) -> Tensor:
    r"""What rows are multiplied by: the inverse of a power of their length, with which the mean
    squared length stays.

    Args:
        length: Of the rows, any shape.
        power: 0 to 1.
    """
    least = 1e-3 * length.square().mean().sqrt()  # what is shorter is the iterations' residue
    scale = length.clamp(min=least) ** -power
    return length.norm() / (scale * length).norm() * scale
