from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gtc_pyg.functional import normalize_rows


class IDs(NamedTuple):
    r"""ID embeddings of a graph's users and items, and the same at unit length."""

    user: Tensor
    """``[U, D]``."""
    item: Tensor
    """``[I, D]``."""
    unit_user: Tensor
    """``[U, D]``."""
    unit_item: Tensor
    """``[I, D]``."""

    @classmethod
    def of(cls, user: Tensor, item: Tensor) -> IDs:
        r"""From the embeddings as they are."""
        return cls(user, item, normalize_rows(user), normalize_rows(item))

    def mean_square(self, user: Tensor, item: Tensor) -> Tensor:
        r"""Half the squared length of some rows, for each of the users."""
        rows = torch.cat([self.user.index_select(0, user), self.item.index_select(0, item)])
        return rows.pow(2).sum() / (2 * user.numel())
