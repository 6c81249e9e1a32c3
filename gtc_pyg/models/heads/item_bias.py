from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Embedding

from gtc_pyg.graph import CSRGraph
from gtc_pyg.models.heads.head import Head


class ItemBias(Head):
    r"""A learned number that is added to all scores of an item.

    The losses see it, and its column is the last one of the embeddings: users have ones there. An
    item without interactions gets the mean of the others, since content does not tell it.

    Example:
        >>> from gtc_pyg.models import LightGCN
        >>> model = LightGCN(30, 20, heads=[ItemBias()])
        >>> model.item_bias.weight.shape
        torch.Size([20, 1])
    """

    in_loss = True

    def bind(self, num_users: int, num_items: int) -> None:
        self.bias = Embedding(num_items, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        r"""Puts all back to 0."""
        torch.nn.init.zeros_(self.bias.weight)

    def users(self, graph: CSRGraph, user: Tensor | None = None) -> Tensor:
        num_users = graph.num_users if user is None else user.numel()
        return self.bias.weight.new_ones(num_users, 1)

    def items(self, graph: CSRGraph, num_item_layers: int) -> Tensor:
        return graph.rows(self.bias, "item")
