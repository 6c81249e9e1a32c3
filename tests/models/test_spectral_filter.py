from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gtc_pyg.functional import low_pass_factors
from gtc_pyg.graph.csr_graph import SIMILAR_ITEMS, USER_TO_ITEM
from gtc_pyg.models import LightGCN, SpectralFilter, SpectralHead
from tests.models.graphs import arguments, csr_of, with_isolated_nodes


@pytest.mark.parametrize("num_item_layers", [0, 1, 2])
def test_scores_are_those_of_the_factors(planted: Callable, num_item_layers: int) -> None:
    graph = planted()
    settings = {"channels": 6, "debiasing": 0.5, "regularization": 0.3}
    model = SpectralFilter(60, 40, num_item_layers=num_item_layers, **settings)
    model.prepare(*arguments(graph)[1:])
    user_emb, item_emb = model(*arguments(graph))
    edges, similar = graph.edge_index_dict[USER_TO_ITEM], csr_of(graph)[SIMILAR_ITEMS]
    reads = (similar, num_item_layers) if num_item_layers > 0 else (None, 0)
    item, message, added = low_pass_factors(edges, 60, 40, 6, *reads, regularization=0.3)
    if num_item_layers > 0:
        s = torch.matrix_power(similar.to_dense(), num_item_layers)
        item = item + s @ item
    unit = item / item.norm(dim=1, keepdim=True) ** 0.5
    item = item.norm() / unit.norm() * unit
    mine = torch.zeros(60, 40)
    mine[tuple(edges)] = 1
    user = mine @ message / (mine.sum(1, keepdim=True) + added).sqrt()
    torch.testing.assert_close(user_emb @ item_emb.t(), user @ item.t(), rtol=1e-4, atol=1e-5)


def test_it_is_a_spectral_head_and_nothing_else(planted: Callable) -> None:
    graph = planted()
    model = SpectralFilter(60, 40, channels=6)
    other = LightGCN(60, 40, 4, heads=[SpectralHead(6)])
    for each in (model, other):
        each.prepare(*arguments(graph)[1:])
    outs = model(*arguments(graph)), other(*arguments(graph))
    for alone, beside in zip(*outs, strict=True):
        torch.testing.assert_close(alone, beside[:, 4:])
    assert sum(p.numel() for p in model.parameters()) == 0 and not model.trainable


def test_it_ranks_held_out_items_above_others(planted: Callable) -> None:
    graph = planted()
    model = SpectralFilter(60, 40, channels=8)
    model.prepare(*arguments(graph)[1:])
    user_emb, item_emb = model(*arguments(graph))
    score, (user, item) = user_emb @ item_emb.t(), graph.val
    seen = torch.zeros_like(score, dtype=torch.bool)
    seen[tuple(graph.edge_index_dict[USER_TO_ITEM])] = True
    pairs = zip(user, item, strict=True)
    above = [float((score[u, i] > score[u, ~seen[u]]).float().mean()) for u, i in pairs]
    assert sum(above) / len(above) > 0.6  # 0.5 by chance


def test_it_is_fitted_before_it_is_used(planted: Callable) -> None:
    graph = planted()
    with pytest.raises(RuntimeError, match="not fitted: call the model's prepare"):
        SpectralFilter(60, 40)(*arguments(graph))


def test_content_serves_items_without_interactions(planted: Callable) -> None:
    graph = with_isolated_nodes(planted())
    model = SpectralFilter(60, 40, graph.in_channels, channels=6)
    model.prepare(*arguments(graph)[1:])
    assert model.modalities == ("image", "text")
    item_emb = model(*arguments(graph))[1]
    assert (item_emb[:3] == 0).all()
    after = model.item_embedder(*arguments(graph)).replace(item_emb)
    assert (after[:3].norm(dim=1) > 0).all() and torch.equal(after[3:], item_emb[3:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"'channels' must be at least 1 \(got 0\)"),
        ({"debiasing": 2.0}, r"'debiasing' must be from 0 to 1 \(got 2.0\)"),
        ({"regularization": 0.0}, r"'regularization' must be from .* \(got 0.0\)"),
        ({"num_item_layers": -1}, r"'num_item_layers' must be at least 0 \(got -1\)"),
        ({"in_channels": [64]}, r"'in_channels' must map modalities to widths"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectralFilter(6, 4, **settings)
