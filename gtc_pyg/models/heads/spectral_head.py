from __future__ import annotations

import torch
from torch import Tensor

from gtc_pyg.functional import check_least, low_pass_factors, takes_numbers
from gtc_pyg.functional.linear import check_regularization
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, CSRGraph
from gtc_pyg.models.heads.head import Head


class SpectralHead(Head):
    r"""A low-pass filter of the interactions, fitted in closed form, without trained weights.

    Learned embeddings of width :math:`D` keep as many directions of the interactions. This head
    adds more of them, see :func:`~gtc_pyg.functional.low_pass_factors`. A user's columns depend on
    their items alone, so new users have them; an item's are smoothed over the item graph.

    Columns of popular items tend to be long, which puts these items first. ``debiasing`` divides
    columns by a power of their length and keeps their mean squared length: with 0 they stay, with 1
    items differ by direction alone. The divisor is at least a thousandth of the root mean square
    length (shorter columns are what the iterations leave of items that the filter knows nothing
    of).

    Losses do not see it. Alone it is a recommender, :class:`~gtc_pyg.models.SpectralFilter`.

    Args:
        channels: Number of columns :math:`K`; what exceeds the number of users or items is zero.
        strength: Factor on the inner products; each side has its root.
        debiasing: The power, 0 to 1.
        regularization: As in :func:`~gtc_pyg.functional.low_pass_factors`.
        num_item_layers: Layers on the item graph; those of the model where ``None``.

    Example:
        >>> from gtc_pyg.datasets import PlantedPreferences
        >>> from gtc_pyg.models import LightGCN
        >>> data = PlantedPreferences(30, 20, ["image"], mean_degree=6.0)[0]
        >>> model = LightGCN(30, 20, hidden_channels=8, heads=[SpectralHead(channels=4)])
        >>> model.prepare(data.edge_index_dict)
        >>> user_emb, item_emb = model({}, data.edge_index_dict)
        >>> user_emb.shape
        torch.Size([30, 12])

    Raises:
        ValueError: For a setting out of its range.
    """

    item: Tensor
    message: Tensor
    added_degree: Tensor
    item_scale: Tensor

    @takes_numbers
    def __init__(
        self,
        channels: int = 128,
        strength: float = 1.0,
        debiasing: float = 0.0,
        regularization: float = 1.0,
        num_item_layers: int | None = None,
    ) -> None:
        super().__init__()
        check_least(1, channels=channels)
        if num_item_layers is not None:
            check_least(0, num_item_layers=num_item_layers)
        if not 1e-6 <= strength <= 1e6:  # others overflow or vanish in single precision
            raise ValueError(f"'strength' must be from 1e-6 to 1e6 (got {strength})")
        if not 0 <= debiasing <= 1:
            raise ValueError(f"'debiasing' must be from 0 to 1 (got {debiasing})")
        check_regularization(regularization)
        self.channels = channels
        self.strength = strength
        self.debiasing = debiasing
        self.regularization = regularization
        self.num_item_layers = num_item_layers

    def bind(self, num_users: int, num_items: int) -> None:
        self.register_buffer("item", torch.zeros(num_items, self.channels))
        self.register_buffer("message", torch.zeros(num_items, self.channels))
        self.register_buffer("added_degree", torch.tensor(0.0))  # 0 until fitted
        self.register_buffer("item_scale", torch.ones(num_items, 1))

    def reset_parameters(self) -> None:
        r"""Forgets what was fitted."""
        self.added_degree.zero_()

    def num_hops(self, num_item_layers: int) -> int:
        return num_item_layers if self.num_item_layers is None else self.num_item_layers

    @torch.no_grad()
    def fit(self, graph: CSRGraph, num_item_layers: int) -> None:
        hops = self.num_hops(num_item_layers)
        factors = low_pass_factors(
            graph.interactions,
            graph.num_users,
            graph.num_items,
            self.channels,
            graph[SIMILAR_ITEMS] if hops > 0 else None,
            hops,
            self.regularization,
        )
        self.item.copy_(factors.item)
        self.message.copy_(factors.message)
        self.added_degree.fill_(factors.added)
        length = graph.with_similar(self.item, hops).norm(dim=1, keepdim=True)
        self.item_scale.copy_(scale_of(length, self.debiasing))

    def check(self) -> None:
        if not self.added_degree > 0:
            raise RuntimeError(
                "a SpectralHead was not fitted: call the model's prepare with the graph of "
                "training first"
            )

    def items(self, graph: CSRGraph, num_item_layers: int) -> Tensor:
        self.check()
        item, scale = self.item, self.item_scale
        if graph.nodes is not None:
            item, scale = item[graph.nodes.item_id], scale[graph.nodes.item_id]
        own = self.strength**0.5 * item
        return scale * graph.with_similar(own, self.num_hops(num_item_layers))

    def users(self, graph: CSRGraph, user: Tensor | None = None) -> Tensor:
        message, degree = self.message, graph.num_items_of_users
        if graph.nodes is not None:
            message, degree = message[graph.nodes.item_id], graph.nodes.user_degree
        out = self._weight(degree).view(-1, 1) * degree.view(-1, 1) * graph.mean_of_items(message)
        return out if user is None else out.index_select(0, user)

    def past(self, graph: CSRGraph, item: Tensor) -> Tensor:
        return self._weight(graph.num_items_of_users.clamp(min=1)) * self.message[item]

    def item_parts(
        self, graph: CSRGraph, num_item_layers: int, item: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        self.check()
        rows, weight = graph.neighbors(item, self.num_hops(num_item_layers), self.item)
        scale = self.strength**0.5 * self.item_scale[item]
        return scale * self.item[item], rows, scale * self.item[rows] * weight.view(-1, 1)

    def _weight(self, degree: Tensor) -> Tensor:
        """What the message of each item counts for a user of some degree."""
        return self.strength**0.5 * (degree + self.added_degree).rsqrt()

    def __repr__(self) -> str:
        return f"{self.__class__.__name__}({self.channels}, strength={self.strength})"


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
