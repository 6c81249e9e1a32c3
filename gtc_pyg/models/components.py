r"""What a model's scores are sums of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.graph import CSRGraph
from gtc_pyg.inductive.user_embedder import item_degree

INTERACTIONS = "interactions"


class Components:
    r"""What each source of a model gives to its items, and its items to users.

    A source is ``'interactions'`` (ID embeddings) or a modality: :math:`S` of them. What is
    propagated is their sum, and propagation is linear, so each is propagated alone. Made by
    :meth:`GraphRecommender.components`, of a model as it is.

    Args:
        graph: The graph of training, whole.
        user: ID embeddings of users as they are propagated ``[U, D]``, a part of
            ``'interactions'``.
        of_items: What items propagate, of each source ``[I, D]``.
        num_layers: Layers on the interactions.
        num_item_layers: Layers on the item graph.
        spread: What an item gives to those that it is similar to ``[I, S, D]``; what it has itself
            where ``None``.
        scale: Factor on the scores.
        modalities: Names of the sources after the first.
    """

    filtered: Mapping[str, Any]
    """Content as all users have it filtered, by modality; empty where the model filters none."""

    def __init__(
        self,
        graph: CSRGraph,
        user: Tensor,
        of_items: Sequence[Tensor],
        num_layers: int,
        num_item_layers: int = 0,
        spread: Tensor | None = None,
        scale: float = 1.0,
        modalities: Sequence[str] = (),
    ) -> None:
        self.sources = (INTERACTIONS, *modalities)
        self.graph, self.num_item_layers, self.scale = graph, num_item_layers, scale
        self.filtered = {}
        item, num_users = of_items[0], graph.num_users
        messages, itself = [], []
        for k, x in enumerate(of_items):
            x = torch.cat([user if k == 0 else torch.zeros_like(user), x])
            messages.append(torch.zeros_like(item))
            if num_layers > 0:
                messages[-1] = num_layers * graph.layer_mean(x, num_layers - 1)[num_users:]
            itself.append(graph.layer_mean(x, num_layers)[num_users:])
        inverse = item_degree(graph, item.dtype).rsqrt().unsqueeze(-1) / (num_layers + 1)
        self.messages = torch.stack(messages, dim=1) * inverse
        r""":math:`\frac{1}{L + 1} |N(i)|^{-1/2} \sum_{l < L} h_i^{(l)}`, what an item sends each of
        its users, but for their own :math:`|N(u)|^{-1/2}`, ``[I, S, D]``."""
        self.itself = torch.stack(itself, dim=1)
        """The item's own embedding ``[I, S, D]``."""
        self.spread = self.itself if spread is None else spread
        """What an item gives to those that it is similar to ``[I, S, D]``."""
        if spread is not None and num_item_layers == 0:
            self.itself = self.itself + spread
        self.ego_weight = 1 / (num_layers + 1)
        """The share of a user's own ID embedding in their embedding."""

    def of_user(self, new: CSRGraph, ego: Tensor) -> tuple[Tensor, Tensor, Mapping[str, Any]]:
        r"""What a user's embedding is made of.

        Args:
            new: The graph of this one user.
            ego: Their ID embedding, as it is propagated ``[D]``.

        Returns:
            Of their own ID embedding ``[S, D]``, over each of their items, ascending, ``[N, S,
            D]``, and content filtered for them, by modality.
        """
        items = new.user_items
        own = self.messages.new_zeros(self.messages.shape[1:])
        own[0] = self.ego_weight * ego
        past = self.messages[items] / max(1, items.numel()) ** 0.5
        return self.scale * own, self.scale * past, {}

    def of_item(self, item: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""What an item's embedding is made of: its own ``[S, D]``, similar items ``[R]``, of which
        the item may be one, and what they give ``[R, S, D]``."""
        rows, weight = self.graph.neighbors(item, self.num_item_layers, self.spread)
        return self.itself[item], rows, self.spread[rows] * weight.view(-1, 1, 1)
