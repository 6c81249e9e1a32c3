from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.utils import coalesce

from gtc_pyg.functional import check_edges, check_ids, check_least, plain_numbers, takes_numbers


class InteractionBatch(NamedTuple):
    r"""Triples for a pairwise ranking loss, each ``[B]``."""

    user: Tensor
    pos_item: Tensor
    neg_item: Tensor

    def to(self, device: torch.device | str) -> InteractionBatch:
        r"""The batch on another device."""
        return InteractionBatch(*(tensor.to(device) for tensor in self))


@takes_numbers
def without_full_users(
    edge_index: Tensor, num_users: int, num_items: int, user_ids: Any = None
) -> Tensor:
    r"""Interactions to train on: without those of users who have every item, with a warning.

    No item is a negative of theirs, so that a ranking loss has nothing to compare. The graph may
    keep them.

    Args:
        edge_index: Interactions ``[2, E]``, users and items; repeated ones count once for this.
        num_users: Number of users.
        num_items: Number of items.
        user_ids: A sequence that names users in the warning, by row; the rows where ``None``.

    Raises:
        ValueError: For an id out of range, or where no interaction is left.
    """
    for name, ids, num in (("user", edge_index[0], num_users), ("item", edge_index[1], num_items)):
        check_ids(ids, num, f"'edge_index' holds {name}")
    edge_index = edge_index.long()
    full = torch.bincount(edge_index[0], minlength=num_users) >= num_items
    if bool(full.any()):  # unless by repetition
        some = coalesce(edge_index[:, full[edge_index[0]]])
        full = torch.bincount(some[0], minlength=num_users) >= num_items
    if not bool(full.any()):
        return edge_index
    kept = edge_index[:, ~full[edge_index[0]]]
    first = int(full.nonzero()[0])
    named = first if user_ids is None else plain_numbers(user_ids[first])
    others = int(full.sum()) - 1
    who = f"user {named!r} and {others:,} more have" if others else f"user {named!r} has"
    what = f"{who} all {num_items:,} items in 'edge_index'"
    if kept.size(1) == 0:
        raise ValueError(f"{what}, and nobody else has any: no negative exists to train with")
    warnings.warn(f"{what}: nothing is a negative of theirs, so none is drawn", stacklevel=3)
    return kept


class NegativeSampler:
    r"""Draws items that a user has **not** interacted with: exactly, evenly, without rejection.

    Of user :math:`u` with sorted items :math:`p_0 < p_1 < \dots`, the :math:`r`-th item that is
    none of them is :math:`r + |\{j : p_j - j \leq r\}|`. The count is one binary search in the
    sorted keys of all users, so a batch takes one vectorised call.

    Args:
        edge_index: Interactions ``[2, E]``, users and items; repeated ones count once.
        num_users: Number of users.
        num_items: Number of items.

    Raises:
        ValueError: For an id out of range; when called for a user who has every item.
    """

    @takes_numbers
    def __init__(self, edge_index: Tensor, num_users: int, num_items: int) -> None:
        edge_index = check_edges(edge_index, num_users, num_items)
        key = torch.unique(edge_index[0] * num_items + edge_index[1])
        user, item = key // num_items, key % num_items
        degree = torch.bincount(user, minlength=num_users)
        self._some_full = bool((degree >= num_items).any())
        self.num_items = num_items
        self.start = degree.cumsum(0) - degree
        self.num_negatives = num_items - degree
        rank = torch.arange(key.numel(), device=key.device) - self.start[user]
        self.keys = user * (num_items + 1) + item - rank

    def __call__(self, user: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""One negative item for each of the users ``[B]``, ``[B]``.

        Raises:
            ValueError: For an unknown user.
        """
        user = check_ids(user, self.start.numel(), "'user' holds")
        device = self.keys.device if generator is None else generator.device
        draw = torch.rand(user.numel(), generator=generator, device=device, dtype=torch.double)
        num = self.num_negatives[user]
        if self._some_full and bool((num == 0).any()):
            raise ValueError(
                f"user {int(user[num == 0][0])} has all {self.num_items} items in 'edge_index', so "
                f"no negative exists: leave them out"
            )
        r = torch.minimum((draw.to(user.device) * num).long(), num - 1)
        before = torch.searchsorted(self.keys, user * (self.num_items + 1) + r, right=True)
        return r + before - self.start[user]


class InteractionLoader:
    r"""Shuffled batches of (user, item, negative item) over the training interactions.

    An epoch sees every interaction once, in an order that depends on ``seed`` and the number of the
    epoch alone; those of users who have every item are left out, with a warning. All on the
    device of ``edge_index``; no Python loop over rows.

    Args:
        edge_index: Interactions ``[2, E]``, users and items.
        num_users: Number of users.
        num_items: Number of items.
        batch_size: Interactions per batch; the last one may be smaller.
        seed: Seeds order and negatives.

    Example:
        >>> edges = torch.tensor([[0, 0, 1], [0, 1, 2]])
        >>> loader = InteractionLoader(edges, num_users=2, num_items=3, batch_size=2)
        >>> len(loader), next(iter(loader)).user.shape
        (2, torch.Size([2]))
    """

    @takes_numbers
    def __init__(
        self,
        edge_index: Tensor,
        num_users: int,
        num_items: int,
        batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        check_least(1, batch_size=batch_size)
        edge_index = check_edges(edge_index, num_users, num_items)
        if edge_index.size(1) == 0:
            raise ValueError("'edge_index' holds no interactions")
        self.edge_index = without_full_users(edge_index, num_users, num_items)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.negatives = NegativeSampler(edge_index, num_users, num_items)

    def __len__(self) -> int:
        return -(-self.edge_index.size(1) // self.batch_size)

    def __iter__(self) -> Iterator[InteractionBatch]:
        generator = torch.Generator(device=self.edge_index.device)
        generator.manual_seed(self.seed * 1_000_003 + self.epoch)
        self.epoch += 1
        order = torch.randperm(
            self.edge_index.size(1), generator=generator, device=self.edge_index.device
        )
        for rows in order.split(self.batch_size):
            user, item = self.edge_index[:, rows]
            yield InteractionBatch(user, item, self.negatives(user, generator))
