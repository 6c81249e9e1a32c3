from __future__ import annotations

from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module


class RowHistory:
    r"""Rows of all users as modules last made them, so that a step makes those of its batch alone.

    From `"GNNAutoScale: Scalable and Expressive Graph Neural Networks via Historical Embeddings"
    <https://arxiv.org/abs/2106.05609>`_. Rows of other users are old by at most an epoch: make
    another history for each. A :class:`~gtc_pyg.models.GTC` keeps ``[U, 2D]`` of each modality:
    1 GB of a million users, two modalities and :math:`D = 64`.
    """

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Module, dict[str, Tensor]] = WeakKeyDictionary()

    def rows_of_all(
        self, module: Module, name: str, user: Tensor, rows: Tensor, make: Callable[[], Tensor]
    ) -> Tensor:
        r"""See :meth:`gtc_pyg.graph.CSRGraph.rows_of_all`."""
        kept = self._kept.setdefault(module, {})
        if name in kept and kept[name].dtype == rows.dtype:
            return kept[name].index_copy_(0, user, rows.detach())
        with torch.no_grad():
            kept[name] = make()
        return kept[name]

    def __len__(self) -> int:
        return len(self._kept)
