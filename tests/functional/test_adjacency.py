from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric import EdgeIndex

from gtc_pyg.functional import check_adjacency, check_csr, check_edges, spmm, to_csr
from tests.functional.native_calls import NOT_WHOLE, WHOLE

SIZE = 100
ids = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE - 1)), max_size=20)


def edges_of(pairs: list[tuple[int, int]], dtype: torch.dtype = torch.long) -> Tensor:
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2).t().to(dtype)


@settings(max_examples=60, deadline=None)
@given(ids, st.sampled_from(WHOLE), st.booleans())
def test_edges_of_any_integer_type_are_the_same(
    pairs: list, dtype: torch.dtype, contiguous: bool
) -> None:
    edges = edges_of(pairs, dtype)
    edges = edges.contiguous() if contiguous else edges
    found = check_edges(edges, SIZE, SIZE)
    assert found.dtype == torch.long and torch.equal(found, edges_of(pairs))
    wanted = torch.zeros(SIZE, SIZE).index_put_(
        (edges_of(pairs)[1], edges_of(pairs)[0]), torch.tensor(1.0), accumulate=True
    )
    assert torch.equal(to_csr(edges, SIZE, SIZE).to_dense(), wanted)


@settings(max_examples=60, deadline=None)
@given(
    ids.filter(len),
    st.integers(-(2**63), 2**63 - 1).filter(lambda x: not 0 <= x < SIZE),
    st.data(),
)
def test_an_id_out_of_range_is_named(pairs: list, wrong: int, data: st.DataObject) -> None:
    edges = edges_of(pairs).clone()
    row, column = data.draw(st.integers(0, 1)), data.draw(st.integers(0, len(pairs) - 1))
    edges[row, column] = wrong
    kind = ("user", "item")[row]
    with pytest.raises(ValueError, match=rf"^'edge_index' holds {kind} {wrong}, expected 0 to 99$"):
        check_edges(edges, SIZE, SIZE)


def test_an_unsigned_id_is_named_as_it_is() -> None:
    edges = torch.tensor([[2**63 + 5], [0]], dtype=torch.uint64)
    with pytest.raises(ValueError, match="holds user 9223372036854775813, expected"):
        check_edges(edges, SIZE, SIZE)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=4), st.sampled_from(WHOLE + NOT_WHOLE))
def test_another_shape_or_type_is_named(shape: list[int], dtype: torch.dtype) -> None:
    edges = torch.zeros(shape, dtype=dtype)
    if len(shape) == 2 and shape[0] == 2 and dtype in WHOLE:
        assert check_edges(edges, 1, 1).shape == edges.shape
        return
    with pytest.raises(ValueError, match=r"must be \[2, E\] of whole numbers, user and item"):
        check_edges(edges, 1, 1)


def test_edges_that_are_right_are_not_copied() -> None:
    edges = torch.tensor([[0, 1], [1, 0]])
    assert check_edges(edges, 2, 2) is edges
    assert check_adjacency(edges, 2, 2) is edges
    assert type(check_edges(EdgeIndex(edges), 2, 2)) is Tensor


def test_any_destination_passes_where_their_number_is_unknown() -> None:
    assert check_edges(torch.tensor([[0], [10**12]]), 1, None)[1].item() == 10**12
    with pytest.raises(ValueError, match="holds item -1, expected 0 or more"):
        check_edges(torch.tensor([[0], [-1]]), 1, None)


def matrix(crow: list[int], col: list[int]) -> Tensor:
    parts = torch.tensor(crow), torch.tensor(col, dtype=torch.long), torch.ones(len(col))
    return torch.sparse_csr_tensor(*parts, size=(3, 2), check_invariants=False)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(-3, 6), min_size=4, max_size=4),
    st.lists(st.integers(-2, 3), max_size=5),
)
def test_what_passes_is_a_matrix(crow: list[int], col: list[int]) -> None:
    rises = crow[0] == 0 and crow[-1] == len(col) and crow == sorted(crow)
    adj = matrix(crow, col)
    if rises and all(0 <= c < 2 for c in col):
        check_csr(adj)
        wanted = torch.zeros(3, 2)
        for row in range(3):
            for c in col[crow[row] : crow[row + 1]]:
                wanted[row, c] += 1
        assert torch.equal(to_csr(adj, 3, 2) @ torch.eye(2), wanted)
    else:
        for call in (check_csr, lambda x: to_csr(x, 3, 2), lambda x: spmm(x, x, torch.ones(2, 1))):
            with pytest.raises(ValueError, match=r"pointers that rise|holds (column|source)"):
                call(adj)


def test_a_matrix_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = torch.Tensor.aminmax
    monkeypatch.setattr(torch.Tensor, "aminmax", lambda x: read.append(1) or real(x))
    adj, back = matrix([0, 1, 1, 2], [0, 1]), matrix([0, 1, 1, 2], [0, 1]).t().to_sparse_csr()
    for _ in range(3):
        spmm(adj, back, torch.ones(2, 1))
    assert len(read) == 2


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_degrees_beyond_half_precision_are_counted(dtype: torch.dtype) -> None:
    edges = torch.stack([torch.arange(3000), torch.zeros(3000, dtype=torch.long)])
    value = torch.ones(3000, dtype=dtype)
    crow = torch.tensor([0, 3000])
    adj = torch.sparse_csr_tensor(crow, edges[0], value, size=(1, 3000))
    torch.set_default_dtype(dtype)
    try:
        for form in (adj, edges):
            csr = to_csr(form, 1, 3000)
            assert csr.dtype == torch.float32
            assert csr.values().sum().item() == 3000
    finally:
        torch.set_default_dtype(torch.float32)
