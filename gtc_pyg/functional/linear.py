r"""Linear models in closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from gtc_pyg.functional.sparse import to_csr


def spectral_items(edge_index: Tensor, num_users: int, num_items: int, dim: int) -> Tensor:
    r"""Leading singular vectors of the normalised interactions, times their squared values.

    Of :math:`D_u^{-1/2} R D_i^{-1/2}`, by 20 power iterations from a fixed start; up to a rotation.

    Args:
        edge_index: Interactions ``[2, E]``, users and items.
        num_users: Number of users :math:`U`.
        num_items: Number of items :math:`I`.
        dim: Number of vectors.

    Returns:
        ``[I, min(dim, U, I)]``; zeros for items without interactions.
    """
    user, item = edge_index
    degree = torch.bincount(user, minlength=num_users), torch.bincount(item, minlength=num_items)
    to_csr(edge_index, num_items, num_users)  # refuses ids out of range
    weight = (degree[0][user] * degree[1][item]).to(torch.get_default_dtype()).rsqrt()
    to_item = to_csr(edge_index, num_items, num_users, weight)
    to_user = to_csr(edge_index.flip(0), num_users, num_items, weight)
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(num_items, min(dim, num_users, num_items), generator=generator).to(weight)
    for _ in range(20):
        axes = torch.linalg.qr(to_item @ (to_user @ axes)).Q
    return to_item @ (to_user @ axes)


def principal_axes(x: Tensor, num: int) -> Tensor:
    r"""The directions of largest variance.

    Args:
        x: ``[N, F]``.
        num: Number of directions.

    Returns:
        ``[min(num, N, F), F]``, of unit length, largest variance first.
    """
    return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:num]


def ridge_predictions(z: Tensor, y: Tensor, known: Tensor) -> Tensor:
    r"""Ridge regression whose penalty has the lowest leave-one-out error.

    Args:
        z: Predictors ``[N, Z]``.
        y: Targets ``[N, F]``; those of unknown rows are not looked at.
        known: Rows that are learned from ``[N]`` (bool).

    Returns:
        Predictions for all rows ``[N, F]``; zeros where fewer than two are known.
    """
    z_mean, y_mean = z[known].mean(0), y[known].mean(0)
    y_known = y[known] - y_mean
    if len(y_known) < 2:
        return torch.zeros_like(y)
    u, s, vh = torch.linalg.svd(z[known] - z_mean, full_matrices=False)
    coefficients = u.t() @ y_known
    best, lowest = torch.zeros_like(s), float("inf")
    for power in range(-2, 5):
        kept = s.pow(2) / (s.pow(2) + 10.0**power * s.pow(2).mean())
        leverage = (u.pow(2) @ kept + 1 / len(u)).clamp(max=1 - 1e-4).view(-1, 1)
        error = float(((y_known - u @ (kept.view(-1, 1) * coefficients)) / (1 - leverage)).norm())
        if error < lowest:
            best, lowest = kept / s.clamp(min=1e-12), error
    return y_mean + (z - z_mean) @ (vh.t() @ (best.view(-1, 1) * coefficients))
