from __future__ import annotations

from collections.abc import Callable

import torch
from hypothesis import given
from hypothesis import strategies as st

from gtc_pyg.graph import Batch
from tests.models.graphs import csr_of

PAIRS = st.lists(st.tuples(*(st.integers(0, 9),) * 3), min_size=1, max_size=20)


@given(pairs=PAIRS, num=st.integers(1, 25))
def test_each_pair_keeps_its_user_and_items(pairs: list[tuple[int, int, int]], num: int) -> None:
    user, pos, neg = torch.tensor(pairs).t()
    batch = Batch.of({}, None, user, pos, neg)
    assert batch.user.tolist() == sorted(set(user.tolist()))
    assert torch.equal(batch.user[batch.row], user)
    row, first_pos, first_neg = batch.first(num)
    kept = list(zip(batch.user[row].tolist(), first_pos.tolist(), first_neg.tolist(), strict=True))
    assert kept == pairs[:num]


def test_content_and_graph_travel_with_it(planted: Callable) -> None:
    graph = planted()
    csr, ids = csr_of(graph), torch.tensor([3, 1])
    batch = Batch.of(graph.features, csr, ids, ids, ids)
    assert batch.features is graph.features and batch.graph is csr
