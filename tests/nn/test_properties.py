r"""Properties over sizes, types, empty graphs and extreme values, drawn by hypothesis.

No layer reads its input for NaN: that costs a pass, and a wait where a device holds it. What is
promised instead: finite values give finite values, and a NaN stays in the rows that depend on it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gtc_pyg.functional import degree_sensitive_sample, spmm, stack_interactions, to_csr
from gtc_pyg.nn import (
    ConditionalDenoiser,
    ModalityEncoder,
    NoiseSchedule,
    SimilarityGate,
    TotalCorrelationLoss,
)

C, D, H = 3, 4, 5
law = settings(max_examples=60, deadline=None, derandomize=True, database=None)
sizes = st.integers(0, 6)
widths = st.integers(1, 5)
seeds = st.integers(0, 2**16)
floats = st.sampled_from([torch.float, torch.double])
all_floats = st.sampled_from([torch.half, torch.bfloat16, torch.float, torch.double])
lengths = st.sampled_from([0.0, 1e-30, 1e-4, 1.0, 1e4, 1e30])
not_numbers = st.sampled_from([math.nan, math.inf, -math.inf])


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Graph(NamedTuple):
    num_users: int
    num_items: int
    edge_index: Tensor
    weight: Tensor

    def dense(self) -> Tensor:
        """Items times users; an edge that stands twice counts twice."""
        out = torch.zeros(self.num_items, self.num_users, dtype=self.weight.dtype)
        return out.index_put_(
            (self.edge_index[1], self.edge_index[0]), self.weight, accumulate=True
        )


@st.composite
def graphs(draw: st.DrawFn, dtype: torch.dtype = torch.float) -> Graph:
    """Any bipartite graph: without users, items or edges, with isolated nodes, edges twice."""
    num_users, num_items = draw(sizes), draw(sizes)
    user, item = st.integers(0, max(num_users - 1, 0)), st.integers(0, max(num_items - 1, 0))
    limit = 12 if num_users and num_items else 0
    edges = draw(st.lists(st.tuples(user, item), max_size=limit))
    ids = draw(st.sampled_from([torch.long, torch.int]))
    weight = draw(st.lists(st.floats(0.125, 8, width=16), min_size=len(edges), max_size=len(edges)))
    edge_index = torch.tensor(edges, dtype=ids).view(-1, 2).t()
    return Graph(num_users, num_items, edge_index, torch.tensor(weight, dtype=dtype))


@law
@given(graphs(), st.booleans())
def test_a_csr_matrix_holds_every_edge(graph: Graph, weighted: bool) -> None:
    weight = graph.weight if weighted else None
    csr = to_csr(graph.edge_index, graph.num_items, graph.num_users, weight)
    expected = graph if weighted else graph._replace(weight=torch.ones_like(graph.weight))
    torch.testing.assert_close(csr.to_dense(), expected.dense())
    again = to_csr(csr, graph.num_items, graph.num_users)
    torch.testing.assert_close(again.to_dense(), expected.dense())


@law
@given(graphs(), st.integers(0, 1), st.integers(-3, 9))
def test_a_csr_matrix_refuses_foreign_ids(graph: Graph, row: int, bad: int) -> None:
    num = (graph.num_users, graph.num_items)
    column = torch.zeros(2, 1, dtype=graph.edge_index.dtype)
    column[row] = bad
    edge_index = torch.cat([graph.edge_index, column], dim=1)
    if 0 <= bad < num[row] and num[1 - row] > 0:
        to_csr(edge_index, graph.num_items, graph.num_users)
    else:
        with pytest.raises(ValueError, match=r"'adj' holds (source|destination) -?\d"):
            to_csr(edge_index, graph.num_items, graph.num_users)


@law
@given(graphs().filter(lambda graph: graph.edge_index.size(1) > 0), st.integers(0, 9))
def test_a_csr_matrix_of_foreign_columns_is_refused(graph: Graph, past: int) -> None:
    csr = to_csr(graph.edge_index, graph.num_items, graph.num_users)
    col = csr.col_indices().clone()
    col[-1] = graph.num_users + past
    adj = torch.sparse_csr_tensor(csr.crow_indices(), col, csr.values(), size=csr.shape)
    with pytest.raises(ValueError, match=f"'adj' holds source {graph.num_users + past}, expected"):
        to_csr(adj, graph.num_items, graph.num_users)


@law
@given(graphs(), st.sampled_from([1e-30, 1.0, 1e30]))
def test_stacked_interactions_are_symmetric_and_never_stretch(graph: Graph, unit: float) -> None:
    weight = graph.weight * unit
    to_item = to_csr(graph.edge_index, graph.num_items, graph.num_users, weight)
    to_user = to_csr(graph.edge_index.flip(0), graph.num_users, graph.num_items, weight)
    out = stack_interactions(to_item, to_user).to_dense()
    assert out.shape == (graph.num_users + graph.num_items,) * 2
    torch.testing.assert_close(out, out.t())
    assert torch.linalg.eigvalsh(out).abs().max().item() < 1 + 1e-5 if out.numel() else True
    isolated = torch.cat([graph.dense().sum(dim=0), graph.dense().sum(dim=1)]) == 0
    assert (out[isolated] == 0).all()


@law
@given(graphs(), widths, seeds, all_floats, floats)
def test_a_sparse_product_equals_the_dense_one(
    graph: Graph, width: int, seed: int, dtype: torch.dtype, stored: torch.dtype
) -> None:
    weight = graph.weight.to(stored)
    to_item = to_csr(graph.edge_index, graph.num_items, graph.num_users, weight)
    to_user = to_csr(graph.edge_index.flip(0), graph.num_users, graph.num_items, weight)
    x = normal(seed, graph.num_users, width).to(dtype).requires_grad_()
    out = spmm(to_item, to_user, x)
    expected = (graph.dense().double() @ x.double()).to(dtype)
    torch.testing.assert_close(out, expected)
    out.sum().backward()
    column = graph.dense().double().sum(dim=0).to(dtype).view(-1, 1).expand_as(x)
    torch.testing.assert_close(x.grad, column)


@law
@given(graphs(), st.floats(0, 1), seeds)
def test_a_sample_of_edges_is_of_that_size_and_has_none_twice(
    graph: Graph, share: float, seed: int
) -> None:
    num = int(share * graph.edge_index.size(1))
    sizes = (graph.num_users, graph.num_items, num)
    kept = degree_sensitive_sample(graph.edge_index, *sizes, torch.Generator().manual_seed(seed))
    assert kept.shape == (num,)
    assert (kept.diff() > 0).all()
    assert ((kept >= 0) & (kept < graph.edge_index.size(1))).all()


def schedules() -> st.SearchStrategy[NoiseSchedule]:
    return st.builds(NoiseSchedule, st.integers(1, 80), st.sampled_from(["linear", "cosine"]))


@law
@given(schedules(), sizes, widths, seeds, all_floats)
def test_noise_is_undone_as_far_as_the_type_allows(
    schedule: NoiseSchedule, size: int, width: int, seed: int, dtype: torch.dtype
) -> None:
    x, noise = normal(seed, size, width, dtype=dtype), normal(seed + 1, size, width, dtype=dtype)
    t = torch.randint(
        schedule.num_steps + 1, (size,), generator=torch.Generator().manual_seed(seed)
    )
    x_t = schedule.add_noise(x, t, noise)
    error = (schedule.predict_start(x_t, t, noise) - x).double().abs()
    signal = schedule.alpha_bar[t].sqrt().view(-1, 1)
    largest = (x.abs() + noise.abs()).double() + 1
    assert x_t.dtype == dtype
    assert (error * signal <= 8 * torch.finfo(dtype).eps * largest).all()


@law
@given(schedules(), lengths, lengths, seeds)
def test_noise_keeps_finite_content_finite(
    schedule: NoiseSchedule, length: float, noise_length: float, seed: int
) -> None:
    x, noise = length * normal(seed, 4, 3), noise_length * normal(seed + 1, 4, 3)
    for t in (0, schedule.num_steps):
        x_t = schedule.add_noise(x, t, noise)
        assert x_t.isfinite().all()
        assert schedule.predict_start(x_t, t, noise).isfinite().all()


@law
@given(
    st.integers(1, 1000),
    st.floats(1e-6, 0.999),
    st.floats(1e-6, 0.999),
)
def test_any_schedule_has_signal_to_its_end_or_says_why_not(
    num_steps: int, start: float, end: float
) -> None:
    try:
        schedule = NoiseSchedule(num_steps, "linear", start, end)
    except ValueError as error:
        assert "'beta_end'" in str(error)
        return
    assert schedule.levels(num_steps, torch.zeros(1))[0] > 0


@law
@given(schedules(), st.integers(-100, 200), st.booleans())
def test_a_time_is_within_the_schedule_or_an_error(
    schedule: NoiseSchedule, t: int, tensor: bool
) -> None:
    x, time = torch.ones(2, 1), torch.tensor([0, t]) if tensor else t
    if 0 <= t <= schedule.num_steps:
        assert schedule.add_noise(x, time, x).isfinite().all()
    else:
        with pytest.raises(ValueError, match=rf"'t' must lie in \[0, .*got {t}\)"):
            schedule.add_noise(x, time, x)


def denoiser_and_inputs(
    graph: Graph, condition: str, aggr: str, seed: int, dtype: torch.dtype, length: float = 1.0
) -> tuple[ConditionalDenoiser, tuple[Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    denoiser = ConditionalDenoiser(D, C, H, condition, aggr).to(dtype)
    shapes = ((graph.num_users, C), (graph.num_items, C), (graph.num_items, D))
    user, item, x_t = (length * normal(seed, *shape).to(dtype) for shape in shapes)
    return denoiser, (user, item), x_t


conditions = st.sampled_from(["item", "neighbors", "user"])
aggregations = st.sampled_from(["mean", "sum"])


@law
@given(graphs(), conditions, aggregations, st.booleans(), seeds, all_floats)
def test_a_denoiser_gives_the_same_from_edges_and_matrix(
    graph: Graph, condition: str, aggr: str, weighted: bool, seed: int, dtype: torch.dtype
) -> None:
    denoiser, x, x_t = denoiser_and_inputs(graph, condition, aggr, seed, dtype)
    weight = graph.weight if weighted else None
    csr = to_csr(graph.edge_index, graph.num_items, graph.num_users, weight)
    out = denoiser(x, graph.edge_index, x_t, 3, weight)
    assert out.dtype == dtype
    assert out.shape == (graph.num_items, D)
    assert out.isfinite().all()
    tolerance = {torch.float: 1e-5, torch.double: 1e-12}.get(dtype, 0.2)
    torch.testing.assert_close(denoiser(x, csr, x_t, 3), out, rtol=tolerance, atol=tolerance)


@law
@given(graphs(), conditions, lengths, st.sampled_from([0.0, 1e-30, 1.0, 1e7]), seeds)
def test_a_denoiser_keeps_finite_content_finite(
    graph: Graph, condition: str, length: float, unit: float, seed: int
) -> None:
    denoiser, x, x_t = denoiser_and_inputs(graph, condition, "mean", seed, torch.float, length)
    x_t.requires_grad_()
    out = denoiser(x, graph.edge_index, x_t, 3, graph.weight * unit)
    assert out.isfinite().all()
    if length > 1e4:  # products of two such values are out of range, so gradients are
        return
    out.sum().backward()
    assert x_t.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in denoiser.parameters() if p.grad is not None)


@law
@given(graphs().filter(lambda graph: graph.edge_index.size(1) > 0), not_numbers, st.booleans())
def test_what_one_user_lacks_reaches_their_items_alone(
    graph: Graph, value: float, sparse: bool
) -> None:
    denoiser, x, x_t = denoiser_and_inputs(graph, "user", "mean", 0, torch.float)
    adj = graph.edge_index
    if sparse:
        adj = to_csr(graph.edge_index, graph.num_items, graph.num_users)
    before = denoiser(x, adj, x_t, 3)
    user = int(graph.edge_index[0, 0])
    x[0][user] = value
    reached = graph.dense()[:, user] > 0
    after = denoiser(x, adj, x_t, 3)
    assert torch.equal(after[~reached], before[~reached])
    assert not after[reached].isfinite().all(dim=1).any()


@law
@given(st.integers(0, 5), widths, st.integers(1, 5), seeds, all_floats)
def test_a_gate_has_weights_that_sum_to_one(
    size: int, width: int, num_modalities: int, seed: int, dtype: torch.dtype
) -> None:
    x, *modalities = normal(seed, num_modalities + 1, size, width, dtype=dtype)
    fused, weight = SimilarityGate()(x, modalities)
    assert (fused.dtype, weight.dtype) == (dtype, dtype)
    assert weight.shape == (size, num_modalities + 1)
    total = weight.double().sum(dim=1)
    assert ((total - 1).abs() <= 4 * torch.finfo(dtype).eps).all()


@law
@given(widths, st.lists(lengths, min_size=2, max_size=6), seeds)
def test_a_gate_keeps_finite_content_finite(width: int, lengths: list[float], seed: int) -> None:
    rows = normal(seed, len(lengths), 3, width)
    tensors = [(length * r).requires_grad_() for length, r in zip(lengths, rows, strict=True)]
    fused, weight = SimilarityGate()(tensors[0], tensors[1:])
    assert fused.isfinite().all()
    expected = SimilarityGate()(rows[0], list(rows[1:]))[1]
    if 0 not in lengths:
        torch.testing.assert_close(weight, expected)
    # A weight's gradient is one length over another, and zeros count as 1e-8.
    if max(lengths) / min(length or 1e-8 for length in lengths) > 1e36:
        return
    fused.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in tensors)


@law
@given(sizes, widths, widths, st.sampled_from([0.0, 1e-30, 1.0, 1e15]), st.booleans(), seeds)
def test_an_encoder_keeps_finite_content_finite(
    size: int, wide: int, width: int, length: float, missing: bool, seed: int
) -> None:
    encoder = ModalityEncoder(wide, width + 1, missing)
    x = length * normal(seed, size, wide)
    out = encoder(x, normal(seed, size) > 0 if missing else None)
    assert out.shape == (size, width + 1)
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


@law
@given(
    st.integers(0, 6),
    widths,
    st.integers(2, 4),
    lengths,
    st.sampled_from(["n", "n_squared"]),
    seeds,
)
def test_total_correlation_of_finite_views_is_finite(
    size: int, width: int, num_views: int, length: float, negatives: str, seed: int
) -> None:
    views = [length * x for x in normal(seed, num_views, size, width)]
    views = [view.requires_grad_() for view in views]
    loss = TotalCorrelationLoss(negatives)(views, generator=torch.Generator().manual_seed(seed))
    assert loss.isfinite()
    if size == 1 and negatives == "n":
        assert loss.abs() < 1e-6
    loss.backward()
    assert all(view.grad.isfinite().all() for view in views)


@law
@given(st.sampled_from(["encoder", "schedule", "gate", "denoiser"]), not_numbers, seeds)
def test_what_is_no_number_stays_in_its_row(name: str, value: float, seed: int) -> None:
    torch.manual_seed(0)
    encoder, schedule = ModalityEncoder(D, D), NoiseSchedule(9)
    denoiser, edges = ConditionalDenoiser(D, C), torch.tensor([[0, 1, 1], [0, 1, 2]])
    rest, users = normal(seed + 1, 3, D), normal(seed + 2, 2, C)
    call = {
        "encoder": encoder,
        "schedule": lambda x: schedule.step(x, torch.tensor([1, 5, 9]), 2, rest),
        "gate": lambda x: SimilarityGate()(rest, [x, rest])[0],
        "denoiser": lambda x: denoiser((users, rest[:, :C]), edges, x, 4),
    }[name]
    x = normal(seed, 3, D)
    before = call(x)
    x[1, 2] = value
    after = call(x)
    assert torch.equal(after[::2], before[::2])
    assert not after[1].isfinite().all()
