from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gtc_pyg.graph.content import Features
from gtc_pyg.graph.csr_graph import CSRGraph


class Batch(NamedTuple):
    r"""What a training step is about: pairs, the content and the graph."""

    features: Features
    """Content of each modality ``[I, F_m]``, and masks."""
    graph: CSRGraph
    """The interactions and similar items."""
    user: Tensor
    """The batch's users, ascending, none twice ``[N]``."""
    row: Tensor
    """Of each pair, the position of its user among them ``[B]``."""
    pos_item: Tensor
    """An item of each user ``[B]``."""
    neg_item: Tensor
    """An item that is none of the user's ``[B]``."""

    @classmethod
    def of(
        cls, features: Features, graph: CSRGraph, user: Tensor, pos_item: Tensor, neg_item: Tensor
    ) -> Batch:
        r"""From the user of each pair ``[B]``."""
        users, row = user.unique(return_inverse=True)
        return cls(features, graph, users, row, pos_item, neg_item)

    def first(self, num: int) -> tuple[Tensor, Tensor, Tensor]:
        r"""The first pairs: positions of users, items of theirs and others."""
        return self.row[:num], self.pos_item[:num], self.neg_item[:num]
