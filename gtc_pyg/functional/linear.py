r"""Linear models in closed form."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional.adjacency import check_csr, check_edges
from gtc_pyg.functional.rows import full_precision
from gtc_pyg.functional.sparse import to_csr


@full_precision()
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
    to_user, to_item, axes = _leading(edge_index, num_users, num_items, dim, regularized=False)
    return to_item @ (to_user @ axes)


@full_precision()
def spectral_factors(
    edge_index: Tensor, num_users: int, num_items: int, dim: int
) -> tuple[Tensor, Tensor]:
    r"""Very nearly the best product of low rank, :math:`P Q^\top`, of the interactions.

    Normalised are they by degrees to which a tenth of the mean degree is added, as in `"Regularized
    Spectral Clustering under the Degree-Corrected Stochastic Blockmodel"
    <https://arxiv.org/abs/1309.4111>`_ (all of it, there):

    .. math::
        (D_u + \tau_u)^{-1/2} R (D_i + \tau_i)^{-1/2} \approx U S V^\top,
        \quad P = U S^{1/2}, \quad Q = V S^{1/2}.

    Without, each small part of the graph that hangs together by itself has a leading vector of its
    own, and few are left for the rest. By 20 power iterations from a fixed start.

    Args:
        edge_index: Interactions ``[2, E]``, users and items.
        num_users: Number of users :math:`U`.
        num_items: Number of items :math:`I`.
        dim: Number of vectors :math:`K`.

    Returns:
        ``[U, K]`` and ``[I, K]`` with :math:`K` at most ``min(U, I)``, largest value first; zeros
        where there are no interactions.
    """
    to_user, to_item, axes = _leading(edge_index, num_users, num_items, dim, regularized=True)
    left, values, right = torch.linalg.svd(to_user @ axes, full_matrices=False)
    scale = values.clamp(min=1e-12).sqrt()
    # Products, not the axes themselves: rows without interactions are zero, and not nearly so.
    return to_user @ (axes @ right.t()) / scale, to_item @ left / scale


class LowPassFactors(NamedTuple):
    r"""A low-pass filter of the interactions as an inner product, see :func:`low_pass_factors`."""

    item: Tensor
    r""":math:`W`, ``[I, K]``: with similar items added, :math:`W + S^L W`, items' factors."""
    message: Tensor
    r""":math:`T`, ``[I, K]``: :math:`(d_u + \tau_u)^{-1/2} \sum_{i \in N(u)} T_i` is a user's."""
    added: float
    r""":math:`\tau_u`, added to the users' degrees."""


@full_precision()
def low_pass_factors(
    edge_index: Tensor,
    num_users: int,
    num_items: int,
    dim: int,
    similar: Tensor | None = None,
    num_hops: int = 1,
    regularization: float = 1.0,
) -> LowPassFactors:
    r"""The smooth part of the interactions, those with similar items included.

    As in `"How Powerful is Graph Convolution for Recommendation?"
    <https://arxiv.org/abs/2108.07567>`_ all but the leading singular vectors is dropped; ours are
    that similar items count (:math:`S`), and that degrees are regularised, which costs the
    vectors of small parts of the graph their lead (:func:`spectral_factors`):

    .. math::
        (D_u + \tau_u)^{-1/2} R (D_i + \tau_i)^{-1/2} (I + S^{L \top}) \approx U \Sigma V^\top,
        \quad P = U \Sigma, \quad Q = V \Sigma,

    :math:`\tau` a share of the mean degree. :math:`P` and :math:`Q` are scaled to a mean squared
    length of 1. By 20 power iterations from a fixed start.

    Args:
        edge_index: Interactions ``[2, E]``, users and items.
        num_users: Number of users :math:`U`.
        num_items: Number of items :math:`I`.
        dim: Number of vectors :math:`K`; what exceeds ``min(U, I)`` is zero.
        similar: The item graph :math:`S`, transposed CSR ``[I, I]``; none where ``None``.
        num_hops: :math:`L`.
        regularization: The share, above 0: the smaller, the more of the vectors are those of small
            parts of the graph.

    Raises:
        ValueError: Without interactions, for an id out of range, or a share that is not above 0.
    """
    edge_index = check_edges(edge_index, num_users, num_items)
    if edge_index.size(1) == 0:
        raise ValueError("'edge_index' must hold at least one interaction (got none)")
    check_regularization(regularization)
    a = _normalized(edge_index, num_users, num_items, regularization)
    if similar is not None:
        check_csr(similar, "similar")
        if similar.shape != (num_items, num_items):
            raise ValueError(
                f"'similar' must be [{num_items}, {num_items}] (got {list(similar.shape)})"
            )
        similar = similar.to(a.to_item.dtype)
    back = None if similar is None else similar.t().to_sparse_csr()

    def added(x: Tensor, matrix: Tensor | None) -> Tensor:
        y = x
        for _ in range(num_hops):
            y = y if matrix is None else matrix @ y
        return x if matrix is None else x + y

    axes = _start(num_items, min(dim, num_users, num_items), a.to_item)
    for _ in range(20):
        axes = torch.linalg.qr(added(a.to_item @ (a.to_user @ added(axes, back)), similar)).Q
    left, values, _ = torch.linalg.svd(a.to_user @ added(axes, back), full_matrices=False)
    length = values.norm().clamp(min=1e-12)
    item = a.to_item @ left
    v = added(item, similar) / values.clamp(min=1e-6 * length)
    message = a.item_factor.view(-1, 1) * added(v, back)
    tables = (item * num_items**0.5 / length, message * num_users**0.5 / length)
    item, message = (F.pad(x, (0, dim - x.size(1))) for x in tables)
    return LowPassFactors(item, message, regularization * edge_index.size(1) / num_users)


def check_regularization(regularization: float) -> None:
    r"""Refuses a share of the mean degree that single precision cannot add to degrees.

    Raises:
        ValueError: Where it is not from 1e-6 to 1e6.
    """
    if not 1e-6 <= regularization <= 1e6:
        raise ValueError(f"'regularization' must be from 1e-6 to 1e6 (got {regularization})")


class _Normalized(NamedTuple):
    """Interactions normalised by degrees."""

    to_user: Tensor  # [U, I]
    to_item: Tensor  # its transpose
    item_factor: Tensor  # [I]


def _normalized(edge_index: Tensor, num_users: int, num_items: int, share: float) -> _Normalized:
    """By degrees to which a share of the mean degree is added."""
    user, item = edge_index = check_edges(edge_index, num_users, num_items)
    factors, dtype = [], torch.promote_types(torch.get_default_dtype(), torch.float)
    for index, size in ((user, num_users), (item, num_items)):
        degree = torch.bincount(index, minlength=size).to(dtype)
        factors.append((degree + share * degree.mean()).rsqrt())
    weight = factors[0].index_select(0, user) * factors[1].index_select(0, item)
    to_item = to_csr(edge_index, num_items, num_users, weight)
    to_user = to_csr(edge_index.flip(0), num_users, num_items, weight)
    return _Normalized(to_user, to_item, factors[1])


def _start(num_items: int, dim: int, like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_items, dim, generator=generator).to(like)


def _leading(
    edge_index: Tensor, num_users: int, num_items: int, dim: int, regularized: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised interactions ``[U, I]``, their transpose, and items' leading axes ``[I, K]``."""
    to_user, to_item, _ = _normalized(edge_index, num_users, num_items, 0.1 * regularized)
    axes = _start(num_items, min(dim, num_users, num_items), to_item)
    for _ in range(20):
        axes = torch.linalg.qr(to_item @ (to_user @ axes)).Q
    return to_user, to_item, axes


def principal_axes(x: Tensor, num: int) -> Tensor:
    r"""The directions of largest variance.

    Args:
        x: ``[N, F]``.
        num: Number of directions.

    Returns:
        ``[min(num, N, F), F]``, of unit length, largest variance first.
    """
    return torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:num]


@full_precision()
def ridge_predictions(z: Tensor, y: Tensor, known: Tensor) -> Tensor:
    r"""Ridge regression whose penalty has the lowest leave-one-out error.

    Args:
        z: Predictors ``[N, Z]``.
        y: Targets ``[N, F]``; those of unknown rows are not looked at.
        known: Rows that are learned from ``[N]`` (bool).

    Returns:
        Predictions for all rows ``[N, F]``; zeros where fewer than two are known.
    """
    if int(known.sum()) < 2:
        return torch.zeros_like(y)
    return ridge_map(z[known], y[known])(z)


class LinearMap(NamedTuple):
    r""":math:`z \mapsto \bar y + (z - \bar z) W`."""

    z_mean: Tensor
    """``[Z]``."""
    weight: Tensor
    """:math:`W`, ``[Z, F]``."""
    y_mean: Tensor
    """``[F]``."""

    def __call__(self, z: Tensor) -> Tensor:
        return self.y_mean + (z - self.z_mean) @ self.weight


@full_precision()
def ridge_map(z: Tensor, y: Tensor) -> LinearMap:
    r"""What :func:`ridge_predictions` predicts with.

    Args:
        z: Predictors ``[N, Z]``.
        y: Targets ``[N, F]``.

    Raises:
        ValueError: For fewer than two rows.
    """
    if len(z) < 2:
        raise ValueError(f"'z' must have at least two rows (got {len(z)})")
    z_mean, y_mean = z.mean(0), y.mean(0)
    u, s, vh = torch.linalg.svd(z - z_mean, full_matrices=False)
    y_known = y - y_mean
    coefficients = u.t() @ y_known
    best, lowest = torch.zeros_like(s), float("inf")
    scale = s.pow(2).mean().clamp(min=1e-12)  # rows may all be alike
    for power in range(-2, 5):
        kept = s.pow(2) / (s.pow(2) + 10.0**power * scale)
        leverage = (u.pow(2) @ kept + 1 / len(u)).clamp(max=1 - 1e-4).view(-1, 1)
        error = float(((y_known - u @ (kept.view(-1, 1) * coefficients)) / (1 - leverage)).norm())
        if error < lowest:
            best, lowest = kept / s.clamp(min=1e-12), error
    return LinearMap(z_mean, vh.t() @ (best.view(-1, 1) * coefficients), y_mean)
