r"""Edges of every integer type, on graphs where users times items pass 2 ** 31."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from gtc_pyg.evaluation import Ranker, evaluate
from gtc_pyg.functional import degree_sensitive_sample, inner_product_topk, low_pass_factors
from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.inductive.user_embedder import new_users
from gtc_pyg.loader import InteractionLoader, NegativeSampler
from gtc_pyg.models import LightGCN
from gtc_pyg.transforms import k_core

U, I = 60_000, 40_000  # 2.4e9 pairs
NARROW = [torch.int32, torch.uint16, torch.uint32, torch.uint64]


def some_edges() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pair = torch.randint(U * I, (3000,), generator=generator).unique()
    pair = torch.cat([pair, torch.tensor([U * I - 1, (U - 1) * I])]).unique()
    return torch.stack([pair // I, pair % I])


EDGES = some_edges()
KNOWN = set(zip(*EDGES.tolist(), strict=True))


@pytest.mark.parametrize("dtype", NARROW)
def test_negatives_are_no_items_of_their_users(dtype: torch.dtype) -> None:
    edges = EDGES.to(dtype)
    drawn = NegativeSampler(edges, U, I)(edges[0], torch.Generator().manual_seed(1))
    expected = NegativeSampler(EDGES, U, I)(EDGES[0], torch.Generator().manual_seed(1))
    assert torch.equal(drawn, expected)
    assert not KNOWN & set(zip(EDGES[0].tolist(), drawn.tolist(), strict=True))


@pytest.mark.parametrize("dtype", NARROW)
def test_batches_hold_every_interaction_once(dtype: torch.dtype) -> None:
    batches = list(InteractionLoader(EDGES.to(dtype), U, I, batch_size=1000))
    users, items = (torch.cat(x).tolist() for x in list(zip(*batches, strict=True))[:2])
    assert set(zip(users, items, strict=True)) == KNOWN
    assert all(x.dtype == torch.long for x in batches[0])


def lists_of(edges: Tensor) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    user_emb, item_emb = (torch.randn(n, 2, generator=generator) for n in (U, I))
    held_out, seen = edges[:, ::9], edges[:, 1::9]
    users = held_out[0][:5].long()
    ranker = Ranker(held_out, [seen], U)
    links = torch.stack([torch.arange(5), EDGES[1, :5]]).to(edges.dtype)
    return {
        "metrics": evaluate(user_emb, item_emb, held_out, [seen]),
        "ranks": ranker.rank(user_emb, item_emb, users, 10).tolist(),
        "topk": inner_product_topk(user_emb[:5], item_emb, 10, links)[1].tolist(),
    }


@pytest.mark.parametrize("dtype", NARROW)
def test_rankings_are_those_of_long_ids(dtype: torch.dtype) -> None:
    assert lists_of(EDGES.to(dtype)) == lists_of(EDGES)


@pytest.mark.parametrize("dtype", NARROW)
def test_models_see_the_same_graph(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = LightGCN(U, I, 2)
    outs = []
    for edges in (EDGES, EDGES.to(dtype)):
        graph = model.csr_graph({USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)})
        assert bool(graph.contains(edges[0], edges[1]).all())
        assert not bool(graph.contains(edges[0], (EDGES[1] + 1).remainder(I).to(dtype)).all())
        loss = model.loss(edges[0], edges[1], EDGES[1].flip(0).to(edges.dtype), {}, graph)
        factors = low_pass_factors(edges, U, I, 2).item.abs()
        kept = degree_sensitive_sample(edges, U, I, 5, torch.Generator().manual_seed(0))
        embedded = model.user_embedder({}, graph)(edges[:, :40], U)
        outs.append([*model({}, graph), *loss.values(), factors, kept, embedded])
    for expected, found in zip(*outs, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", NARROW)
def test_new_users_keep_their_items(dtype: torch.dtype) -> None:
    graph = new_users(torch.cat([EDGES, EDGES], dim=1).to(dtype), U, I)
    item, user = graph[USER_TO_ITEM].to_sparse_coo().indices()
    assert set(zip(user.tolist(), item.tolist(), strict=True)) == KNOWN


@pytest.mark.parametrize("dtype", NARROW)
def test_the_core_is_the_same(dtype: torch.dtype) -> None:
    dense = torch.cartesian_prod(torch.arange(U - 3, U), torch.arange(I - 4, I)).t()
    edges = torch.cat([EDGES[:, :500], dense], dim=1).unique(dim=1)
    expected = (edges[0] >= U - 3) & (edges[1] >= I - 4)
    assert torch.equal(k_core(edges.to(dtype), U, I, 3), expected)
