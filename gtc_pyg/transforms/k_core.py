r"""The k-core of interactions."""

from __future__ import annotations

import torch
from torch import Tensor

from gtc_pyg.functional import check_edges, check_least, takes_numbers


@takes_numbers
def k_core(edge_index: Tensor, num_users: int, num_items: int, k: int) -> Tensor:
    r"""Marks the interactions of the :math:`k`-core.

    The :math:`k`-core is the largest set of interactions in which every user and every item that
    occurs has at least :math:`k` of them. It is unique: users and items with fewer are taken out
    with their interactions, again and again, until none is left.

    Args:
        edge_index: Interactions ``[2, E]``, users and items, each pair once.
        num_users: Number of users.
        num_items: Number of items.
        k: The least number of interactions; 0 and 1 keep all.

    Returns:
        Boolean mask ``[E]``; all false where there is no such core.

    Raises:
        ValueError: If :obj:`k` is negative or an id is out of range.

    Example:
        >>> import torch
        >>> edge_index = torch.tensor([[0, 0, 1, 1, 2], [0, 1, 0, 1, 1]])
        >>> k_core(edge_index, num_users=3, num_items=2, k=2).tolist()
        [True, True, True, True, False]
    """
    check_least(0, k=k)
    edge_index = check_edges(edge_index, num_users, num_items)
    left = torch.arange(edge_index.size(1), device=edge_index.device)
    while k > 1 and left.numel() > 0:
        user, item = edge_index[:, left]
        enough_user = torch.bincount(user, minlength=num_users) >= k
        enough_item = torch.bincount(item, minlength=num_items) >= k
        keep = enough_user[user] & enough_item[item]
        if bool(keep.all()):
            break
        left = left[keep]
    mask = torch.zeros(edge_index.size(1), dtype=torch.bool, device=edge_index.device)
    mask[left] = True
    return mask
