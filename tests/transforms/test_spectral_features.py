from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData

from gtc_pyg.transforms import SpectralFeatures, spectral_embedding


def random_graph(num_nodes: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    edge_index = torch.randint(num_nodes, (2, 40), generator=generator).unique(dim=1)
    return edge_index, torch.rand(edge_index.size(1), generator=generator)


def test_equals_dense_eigendecomposition_up_to_sign() -> None:
    edge_index, edge_weight = random_graph()
    out = spectral_embedding(edge_index, edge_weight, 9, dim=4).numpy()
    dense = np.zeros((9, 9))
    dense[edge_index[0], edge_index[1]] = edge_weight
    dense = (dense + dense.T) / 2
    scale = dense.sum(1) ** -0.5
    values, vectors = np.linalg.eigh(scale[:, None] * dense * scale)
    expected = vectors[:, ::-1][:, :4] * np.sqrt(9 * values[::-1][:4].clip(min=0))
    np.testing.assert_allclose(np.abs(out), np.abs(expected), atol=1e-5)
    np.testing.assert_allclose((out**2).mean(0), values[::-1][:4].clip(min=0), atol=1e-5)


def test_deterministic_with_fixed_sign() -> None:
    edge_index, edge_weight = random_graph()
    first = spectral_embedding(edge_index, edge_weight, 9, dim=4)
    assert torch.equal(first, spectral_embedding(edge_index, edge_weight, 9, dim=4))
    other_start = spectral_embedding(edge_index, edge_weight, 9, dim=4, seed=1)
    assert torch.allclose(first, other_start, atol=1e-5)
    largest = first.abs().argmax(dim=0)
    assert (first[largest, torch.arange(4)] >= 0).all()


def test_direction_of_edges_does_not_matter() -> None:
    edge_index, edge_weight = random_graph()
    expected = spectral_embedding(edge_index, edge_weight, 9, dim=3)
    out = spectral_embedding(edge_index.flip(0), edge_weight, 9, dim=3)
    assert torch.allclose(out, expected, atol=1e-5)


def test_planted_clusters_are_closer_inside_than_between() -> None:
    generator = torch.Generator().manual_seed(0)
    cluster = torch.arange(60) % 3
    same = cluster[:, None] == cluster
    edge = torch.rand(60, 60, generator=generator) < torch.where(same, 0.5, 0.05)
    out = spectral_embedding(edge.nonzero().t(), None, 60, dim=3)
    distance = torch.cdist(out, out)
    assert distance[same].mean() < 0.5 * distance[~same].mean()


def test_isolated_nodes_and_negative_weights_give_zero_rows() -> None:
    edge_index = torch.tensor([[0, 1, 2, 3, 5], [1, 2, 0, 1, 0]])
    edge_weight = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0])
    out = spectral_embedding(edge_index, edge_weight, 6, dim=2)
    assert out.isfinite().all()
    assert (out[4:] == 0).all()


@pytest.mark.parametrize("dim", [0, 9, 10])
def test_bad_dim_is_named(dim: int) -> None:
    with pytest.raises(ValueError, match=rf"'dim' must lie in \[1, 8\], .*\(got {dim}\)"):
        spectral_embedding(*random_graph(), 9, dim)


def graph_data() -> HeteroData:
    data = HeteroData()
    data["item"].num_nodes = 9
    store = data["item", "similar_image", "item"]
    store.edge_index, store.edge_weight = random_graph()
    return data


def test_transform_adds_features_and_leaves_its_input_alone() -> None:
    data = graph_data()
    out = SpectralFeatures("image", dim=3)(data)
    assert torch.equal(out["item"].x_image, spectral_embedding(*random_graph(), 9, 3))
    assert "x_image" not in data["item"]


def test_transform_needs_the_graph() -> None:
    with pytest.raises(ValueError, match="modality 'text' has no graph"):
        SpectralFeatures("text")(graph_data())
    with pytest.raises(ValueError, match=r"'dim' must be at least 1 \(got 0\)"):
        SpectralFeatures("image", dim=0)
