from __future__ import annotations

import networkx as nx
import pytest
import torch

from gtc_pyg.transforms import k_core


def bipartite(num_users: int, num_items: int, share: float, seed: int) -> torch.Tensor:
    graph = nx.bipartite.random_graph(num_users, num_items, share, seed=seed)
    pairs = [(min(edge), max(edge) - num_users) for edge in graph.edges()]
    generator = torch.Generator().manual_seed(seed)
    edge_index = torch.tensor(pairs).view(-1, 2).t()
    return edge_index[:, torch.randperm(len(pairs), generator=generator)]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [0, 1, 2, 3, 4, 5])
def test_equals_networkx(k: int, seed: int) -> None:
    num_users, num_items = 20, 15
    edge_index = bipartite(num_users, num_items, 0.08 + 0.04 * seed, seed)
    graph = nx.Graph((int(u), num_users + int(i)) for u, i in edge_index.t())
    core = nx.k_core(graph, k)
    mask = k_core(edge_index, num_users, num_items, k)
    left = {(int(u), num_users + int(i)) for u, i in edge_index[:, mask].t()}
    assert left == {(min(edge), max(edge)) for edge in core.edges()}


def test_one_removal_pulls_the_next() -> None:
    # a square (users 0 and 1, items 0 and 1) with a tail: item 1 - user 2 - item 2 - user 3
    edge_index = torch.tensor([[0, 0, 1, 1, 2, 2, 3], [0, 1, 0, 1, 1, 2, 2]])
    assert k_core(edge_index, 4, 3, 2).tolist() == [True] * 4 + [False] * 3
    assert not k_core(edge_index, 4, 3, 3).any()


def test_nothing_in_nothing_out() -> None:
    assert k_core(torch.empty(2, 0, dtype=torch.long), 3, 2, 5).shape == (0,)


@pytest.mark.parametrize(
    ("edge", "k", "message"),
    [
        ([[0], [0]], -1, r"'k' must be at least 0 \(got -1\)"),
        ([[2], [0]], 2, "'edge_index' holds user 2, expected 0 to 1"),
        ([[0], [-1]], 2, "'edge_index' holds item -1, expected 0 to 0"),
    ],
)
def test_bad_input_is_named(edge: list[list[int]], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        k_core(torch.tensor(edge), 2, 1, k)
