from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gtc_pyg.functional import (
    low_pass_factors,
    principal_axes,
    ridge_map,
    ridge_predictions,
    spectral_factors,
    spectral_items,
)


def test_principal_axes_are_the_directions_of_largest_variance() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, generator=g).double() @ torch.randn(5, 5, generator=g).double() + 3
    values, vectors = torch.linalg.eigh(torch.cov(x.t()))
    axes = principal_axes(x, 2)
    torch.testing.assert_close((axes @ vectors[:, [-1, -2]]).abs(), torch.eye(2).double())
    assert values[-1] > values[-2]
    assert principal_axes(x, 9).shape == (5, 5)


def test_ridge_is_ridge_with_the_penalty_that_leaves_out_best() -> None:
    g = torch.Generator().manual_seed(0)
    z, known = torch.randn(12, 3, generator=g).double(), torch.arange(12) < 9
    y = z @ torch.randn(3, 2, generator=g).double() + torch.randn(12, 2, generator=g)

    def ridge(rows: Tensor, penalty: Tensor) -> Tensor:
        centred = z[rows] - z[rows].mean(0)
        gram = centred.t() @ centred + penalty * torch.eye(3).double()
        weight = torch.linalg.solve(gram, centred.t() @ (y[rows] - y[rows].mean(0)))
        return y[rows].mean(0) + (z - z[rows].mean(0)) @ weight

    scale = torch.linalg.svdvals(z[known] - z[known].mean(0)).pow(2).mean()
    errors = {}
    for power in range(-2, 5):
        error = 0.0
        for row in range(9):
            rows = known.clone()
            rows[row] = False
            error += float((ridge(rows, 10.0**power * scale)[row] - y[row]).pow(2).sum())
        errors[power] = error
    best = min(errors, key=lambda power: errors[power])
    torch.testing.assert_close(ridge_predictions(z, y, known), ridge(known, 10.0**best * scale))


def test_a_ridge_map_predicts_rows_that_it_did_not_see() -> None:
    g = torch.Generator().manual_seed(0)
    z, turn = torch.randn(30, 3, generator=g).double(), torch.randn(3, 2, generator=g).double()
    y, known = z @ turn + 5, torch.arange(30) < 20
    expected = ridge_predictions(z, y, known)
    torch.testing.assert_close(ridge_map(z[known], y[known])(z), expected)
    alike = ridge_map(torch.ones(4, 3), torch.arange(8.0).view(4, 2))  # they tell nothing
    torch.testing.assert_close(alike(torch.randn(2, 3)), torch.tensor([[3.0, 4.0]] * 2))
    with pytest.raises(ValueError, match=r"at least two rows \(got 1\)"):
        ridge_map(z[:1], y[:1])


def test_spectral_axes_are_the_leading_singular_vectors() -> None:
    num_users, num_items = 60, 200
    dense = torch.rand(num_users, num_items, generator=torch.Generator().manual_seed(0))
    dense[:, :5] = 0
    edge_index = (dense > 0.9).nonzero().t()
    x = spectral_items(edge_index, num_users, num_items, 6)
    dense = torch.zeros(num_users, num_items)
    dense[edge_index[0], edge_index[1]] = 1
    dense /= (dense.sum(1, keepdim=True) * dense.sum(0)).sqrt().clamp(min=1)
    values = torch.linalg.svdvals(dense)[:6]
    torch.testing.assert_close(torch.linalg.svdvals(x), values.pow(2), rtol=2e-2, atol=1e-3)
    assert x[dense.sum(0) == 0].abs().sum() == 0


def test_spectral_factors_are_the_best_product_of_low_rank() -> None:
    num_users, num_items = 50, 30
    dense = torch.rand(num_users, num_items, generator=torch.Generator().manual_seed(0)) > 0.8
    dense[:, :3] = False
    dense[7] = False
    user, item = factors = spectral_factors(dense.nonzero().t(), num_users, num_items, 4)
    assert [x.shape for x in factors] == [(50, 4), (30, 4)]
    assert all((x.norm(dim=1) > 0).equal(dense.any(1 - d)) for d, x in enumerate(factors))
    degrees = dense.sum(1, keepdim=True).float(), dense.sum(0, keepdim=True).float()
    whole = dense.float()
    for degree in degrees:
        whole = whole / (degree + 0.1 * degree.mean()).sqrt()
    left, values, right = torch.linalg.svd(whole)
    best = left[:, :4] * values[:4] @ right[:4]
    # After 20 iterations the axes still mix with the next ones a little.
    lost, least = (whole - user @ item.t()).norm(), (whole - best).norm()
    assert least <= lost < 1.001 * least
    for x in factors:  # balanced, largest first
        torch.testing.assert_close(x.t() @ x, values[:4].diag(), rtol=2e-2, atol=1e-2)


def test_spectral_factors_see_past_small_parts_of_the_graph() -> None:
    # Four planted groups of 20 users and 20 items, and 30 pairs that touch nothing else.
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(80) // 20
    chance = torch.where(group.view(-1, 1) == group, 0.4, 0.05)
    edges = (torch.rand(80, 80, generator=generator) < chance).nonzero().t()
    alone = torch.arange(80, 110).expand(2, -1)
    user, item = spectral_factors(torch.cat([edges, alone], dim=1), 110, 110, 6)
    for x in (user[:80], item[:80]):
        x = torch.nn.functional.normalize(x)
        nearest = (x @ x.t()).fill_diagonal_(-1).argmax(dim=1)
        assert (group[nearest] == group).float().mean() > 0.9


@pytest.mark.parametrize(("num_hops", "share"), [(0, 1.0), (1, 1.0), (1, 0.1), (2, 1.0)])
def test_low_pass_factors_are_leading_directions_with_item_graph(
    num_hops: int, share: float
) -> None:
    num_users, num_items, dim = 50, 30, 6
    g = torch.Generator().manual_seed(0)
    alike = torch.arange(num_users).view(-1, 1) % dim == torch.arange(num_items) % dim
    chance = torch.where(alike, 0.8, 0.05)  # so that six values stand out
    dense = (torch.rand(num_users, num_items, generator=g) < chance).float()
    dense[7] = 0
    weight = torch.rand(num_items, num_items, generator=g)
    kind = torch.arange(num_items) % dim
    similar = torch.where((weight > 0.7) & (kind == kind.view(-1, 1)), weight, 0.0)
    similar_csr = similar.to_sparse_csr() if num_hops else None
    edge_index = dense.nonzero().t()
    item, told, added = low_pass_factors(
        edge_index, num_users, num_items, dim, similar_csr, num_hops, share
    )
    degree = dense.sum(1), dense.sum(0)
    near = torch.matrix_power(similar, num_hops) if num_hops else torch.zeros_like(similar)
    scale = [(d + share * d.mean()).rsqrt() for d in degree]
    b = (scale[0].view(-1, 1) * dense * scale[1]) @ (torch.eye(num_items) + near.t())
    u, s, vt = torch.linalg.svd(b, full_matrices=False)
    best = (u[:, :dim] * s[:dim] ** 2) @ vt[:dim] / s[:dim].square().sum()
    users, items = (degree[0] + added).rsqrt().view(-1, 1) * (dense @ told), item + near @ item
    assert added == pytest.approx(share * float(degree[0].mean()))
    factor = (num_users * num_items) ** 0.5
    torch.testing.assert_close(users @ items.t(), factor * best, atol=2e-3, rtol=1e-3)
    assert float(users.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-3)
    assert float(items.square().sum(1).mean()) == pytest.approx(1.0, rel=1e-3)
    assert users[7].abs().sum() == 0


def test_low_pass_factors_beyond_rank_are_zero_and_bad_ids_named() -> None:
    edge_index = torch.tensor([[0, 1, 2, 2], [0, 1, 1, 3]])
    item, told, _ = low_pass_factors(edge_index, 3, 4, 8)
    assert item.shape == told.shape == (4, 8)
    assert item[:, 3:].abs().sum() == told[:, 3:].abs().sum() == 0
    assert item.isfinite().all() and told.isfinite().all()
    with pytest.raises(ValueError, match="3"):
        low_pass_factors(torch.tensor([[0, 3], [0, 1]]), 3, 4, 2)
