from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from gtc_pyg.graph import CSRGraph


class Head(Module):
    r"""Columns beside the embeddings of a recommender when items are ranked.

    The score of a pair stays one inner product: a head adds the inner product of its own columns.
    One head serves one model, which gives it its sizes (:meth:`bind`).
    """

    in_loss: ClassVar[bool] = False
    """Whether losses see it. Then it has one trained column, which is 1 for users: a bias."""
    bound = False
    """Whether it serves a model."""

    def bind(self, num_users: int, num_items: int) -> None:
        r"""Makes the tables of a model with so many users and items."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        r"""Draws its weights anew, of a head that has any."""

    def num_hops(self, num_item_layers: int) -> int:
        r"""How many layers of the item graph it reads in a model that has ``num_item_layers``."""
        return 0

    def fit(self, graph: CSRGraph, num_item_layers: int) -> None:
        r"""Finds what can be found in closed form before training; nothing here.

        Args:
            graph: The graph of training, whole.
            num_item_layers: Layers of the model on the item graph.
        """

    def check(self) -> None:
        r"""Refuses to be used before :meth:`fit`, where that is needed."""

    def users(self, graph: CSRGraph, user: Tensor | None = None) -> Tensor:
        r"""Columns of users ``[N, C]``, from their items alone.

        Args:
            graph: Interactions of these users, who need not be those of training, with the items.
            user: Which users of the graph; all where ``None``.
        """
        raise NotImplementedError

    def items(self, graph: CSRGraph, num_item_layers: int) -> Tensor:
        r"""Columns of the graph's items ``[I, C]``."""
        raise NotImplementedError

    def past(self, graph: CSRGraph, item: Tensor) -> Tensor:
        r"""What each of one user's items adds to their columns ``[N, C]``; zeros here.

        Args:
            graph: Of that one user.
            item: Their items ``[N]``.
        """
        return torch.zeros_like(self.users(graph)).expand(item.numel(), -1)

    def item_parts(
        self, graph: CSRGraph, num_item_layers: int, item: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        r"""What an item's columns are made of: its own ``[C]``, and what similar items give.

        Returns:
            Its own part ``[C]``, similar items ``[R]`` and their parts ``[R, C]``.
        """
        own = self.items(graph, num_item_layers)[item]
        nobody = torch.empty(0, dtype=torch.long, device=own.device)
        return own, nobody, own.new_zeros(0, own.numel())


class Heads(ModuleList):
    r"""The heads of one recommender, those that losses see last.

    Args:
        heads: Of different classes, or of one class with other settings.
        num_users: Number of users of the model.
        num_items: Number of items of the model.

    Raises:
        ValueError: For anything but heads, or a head that serves another model already.
    """

    def __init__(self, heads: Iterable[Head], num_users: int, num_items: int) -> None:
        if not isinstance(heads, Iterable):
            raise ValueError(f"'heads' must be a list of heads (got {type(heads).__name__})")
        heads = list(heads)
        for position, head in enumerate(heads):
            if not isinstance(head, Head):
                raise ValueError(f"'heads' must hold heads (got {type(head).__name__})")
            if any(head is other for other in heads[:position]):
                raise ValueError(f"'heads' holds one {type(head).__name__} twice")
            if head.bound:
                raise ValueError(
                    f"'heads' holds a {type(head).__name__} that serves another model already, "
                    f"whose tables would be lost: make a new one"
                )
        super().__init__(sorted(heads, key=lambda head: bool(head.in_loss)))
        if sum(head.in_loss for head in heads) > 1:
            raise ValueError("'heads' may hold one head that losses see (got more)")
        for head in self:
            head.bind(num_users, num_items)
            head.bound = True

    def __iter__(self) -> Iterator[Head]:
        return cast(Iterator[Head], super().__iter__())

    @property
    def in_loss(self) -> list[Head]:
        r"""Those that losses see: none or one, whose columns are the last ones."""
        return [head for head in self if head.in_loss]

    def num_hops(self, num_item_layers: int) -> int:
        r"""The most layers of the item graph that any of them reads."""
        return max((head.num_hops(num_item_layers) for head in self), default=0)

    def fit(self, graph: CSRGraph, num_item_layers: int) -> None:
        r"""Fits each, see :meth:`Head.fit`."""
        for head in self:
            head.fit(graph, num_item_layers)

    def check(self) -> None:
        r"""Refuses to be used before :meth:`fit`."""
        for head in self:
            head.check()
