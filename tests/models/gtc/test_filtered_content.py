from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gtc_pyg.graph.csr_graph import USER_TO_ITEM
from tests.models.filters import CONDITIONS, filter_of, run, x_hat_of


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("num_sampling_steps", [1, 3])
def test_for_users_equals_the_filter_edge_by_edge(
    planted: Callable, condition: str, num_sampling_steps: int
) -> None:
    graph = planted()
    steps = {"num_sampling_steps": num_sampling_steps}
    model = filter_of(graph, condition=condition, hidden_channels=11, **steps)
    filtered, csr = run(model, graph)
    user, item = graph.edge_index_dict[USER_TO_ITEM]
    for name, out in model.mean_content(filtered, csr).items():
        for u in range(graph.num_users):
            pairs = [x_hat_of(model, name, filtered[name], u, i) for i in item[user == u]]
            expected = torch.stack(pairs).mean(dim=0)
            torch.testing.assert_close(out[u], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_pairs_of_any_shape_are_filtered_by_the_equation(planted: Callable, condition: str) -> None:
    graph = planted()
    model = filter_of(graph, condition=condition, num_sampling_steps=2)
    filtered, _ = run(model, graph)
    user, item = torch.tensor([3, 0, 9]), torch.tensor([5, 5, 8])
    for name, out in filtered.items():
        pairs = out.for_pairs(user, item)
        expected = [x_hat_of(model, name, out, u, i) for u, i in zip(user, item, strict=True)]
        torch.testing.assert_close(pairs, torch.stack(expected), rtol=0, atol=1e-5)
        grid = out.for_pairs(user.view(-1, 1), item).expand(3, 3, 8)
        torch.testing.assert_close(grid.diagonal().t(), pairs)
