r"""What every recommender takes and refuses: batches, graphs, precisions."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.models import GraphRecommender, ItemBias, SpectralHead
from gtc_pyg.models.registry import MODELS
from gtc_pyg.nn import SampledSoftmax
from tests.functional.native_calls import NOT_WHOLE, WHOLE
from tests.models.graphs import arguments, gtc_of, seeded

NAMES = ["lightgcn", "freedom", "mgcn", "gtc", "gtc with heads"]


def model_of(graph: SimpleNamespace, name: str) -> GraphRecommender:
    torch.manual_seed(0)
    if name.startswith("gtc"):
        heads = {"heads": [SpectralHead(4), ItemBias()], "ranking": SampledSoftmax(8)}
        return gtc_of(graph, **(heads if "heads" in name else {}))
    content = [] if name == "lightgcn" else [graph.in_channels]
    return MODELS[name](graph.num_users, graph.num_items, *content, 8)


def loss_of(model: GraphRecommender, batch: Any, graph: SimpleNamespace) -> Tensor:
    return sum(model.loss(*batch, *arguments(graph), generator=seeded()).values())  # type: ignore


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", WHOLE)
def test_ids_of_any_integer_type_have_the_same_loss(
    planted: Callable, batch_of: Callable, name: str, dtype: torch.dtype
) -> None:
    graph = planted()
    model, batch = model_of(graph, name), batch_of(graph)
    expected = loss_of(model, batch, graph)
    found = loss_of(model, [ids.to(dtype) for ids in batch], graph)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_batches_that_are_wrong_are_named(
    planted: Callable, batch_of: Callable, name: str, data: st.DataObject
) -> None:
    graph = planted()
    batch = list(batch_of(graph))
    which = data.draw(st.integers(0, 2))
    argument, limit = [("user", 60), ("pos_item", 40), ("neg_item", 40)][which]
    ids = batch[which]
    kind = data.draw(st.sampled_from(["range", "type", "length", "shape", "empty", "no tensor"]))
    if kind == "range":
        wrong = data.draw(st.integers(-(2**63), 2**63 - 1).filter(lambda x: not 0 <= x < limit))
        batch[which] = ids.clone()
        batch[which][data.draw(st.integers(0, len(ids) - 1))] = wrong
        message = rf"'{argument}' holds {wrong}, expected 0 to {limit - 1}"
    elif kind == "type":
        dtype = data.draw(st.sampled_from(NOT_WHOLE))
        batch[which] = ids.to(dtype)
        message = rf"'{argument}' holds {dtype} values, expected whole numbers"
    elif kind == "empty":
        batch = [x[:0] for x in batch]
        message = "'user' must hold at least one"
    else:
        batch[which] = {
            "length": ids[:-1],
            "shape": ids.view(-1, 1),
            "no tensor": ids.tolist(),
        }[kind]
        message = r"'user', 'pos_item' and 'neg_item' must be \[B\] each"
    with pytest.raises(ValueError, match=message):
        loss_of(model_of(graph, name), batch, graph)


def test_directions_that_differ_at_equal_degrees_are_refused(planted: Callable) -> None:
    graph = planted()
    edges = graph.edge_index_dict[USER_TO_ITEM]
    known = set(zip(*edges.tolist(), strict=True))
    # Two users swap an item each: all degrees stay.
    (u, i), (v, j) = next(
        (a, b)
        for a in sorted(known)
        for b in sorted(known)
        if (a[0], b[1]) not in known and (b[0], a[1]) not in known
    )
    swapped = torch.tensor(sorted(known - {(u, i), (v, j)} | {(u, j), (v, i)})).t()
    model = model_of(graph, "lightgcn")
    with pytest.raises(ValueError, match=r"must be the same interactions \(got .* 4 of them in on"):
        model.csr_graph({USER_TO_ITEM: edges, ITEM_TO_USER: swapped.flip(0)})
    order = torch.randperm(edges.size(1), generator=seeded())
    model.csr_graph({USER_TO_ITEM: edges, ITEM_TO_USER: edges.flip(0)[:, order]})


def scores(model: GraphRecommender, graph: SimpleNamespace) -> Tensor:
    with torch.no_grad():
        user_emb, item_emb = model(*arguments(graph))
    return user_emb.double() @ item_emb.double().t()


def agree(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert found.isfinite().all()
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


@pytest.fixture
def default_dtype() -> Iterator[Callable[[torch.dtype], None]]:
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.double, 1e-5), (torch.bfloat16, 0.03), (torch.half, 4e-3)]
)
def test_weights_of_any_precision_rank_content_of_any(
    planted: Callable, batch_of: Callable, name: str, dtype: torch.dtype, tolerance: float
) -> None:
    graph = planted()
    model, batch = model_of(graph, name), batch_of(graph)
    expected = scores(model, graph)
    cast = copy.deepcopy(model).to(dtype)
    agree(scores(cast, graph), expected, tolerance)
    loss_of(cast, batch, graph).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in cast.parameters())
    graph.features = {key: x.to(dtype) for key, x in graph.features.items()}
    agree(scores(model, graph), expected, tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_float64_as_the_default_changes_no_list(
    planted: Callable, batch_of: Callable, default_dtype: Callable, name: str
) -> None:
    graph = planted()
    expected = model_of(graph, name)
    lists = scores(expected, graph)
    default_dtype(torch.float64)
    model = model_of(graph, name)
    model.load_state_dict(expected.state_dict())
    agree(scores(model, graph), lists, 1e-5)
    loss_of(model, batch_of(graph), graph).backward()
    assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.half])
def test_autocast_ranks_and_learns_what_floats_do(
    planted: Callable, batch_of: Callable, name: str, dtype: torch.dtype
) -> None:
    graph = planted()
    model, batch = model_of(graph, name), batch_of(graph)
    expected, wanted = scores(model, graph), loss_of(model, batch, graph)
    wanted.backward()
    grads = {key: p.grad for key, p in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", dtype):
        found, loss = scores(model, graph), loss_of(model, batch, graph)
    loss.backward()  # outside, as in a usual loop
    agree(found, expected, 0.02)
    torch.testing.assert_close(loss, wanted, rtol=0.02, atol=0)
    for key in ("user_emb.weight", "item_emb.weight"):
        grad = dict(model.named_parameters())[key].grad
        assert torch.cosine_similarity(grad.flatten(), grads[key].flatten(), dim=0) > 0.98


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context", ["autocast", "double", "half", "bfloat16"])
def test_newcomers_are_embedded_right_or_refused(
    planted: Callable, name: str, context: str
) -> None:
    graph = planted()

    def embedded(model: GraphRecommender) -> list[Tensor]:
        edges = torch.tensor([[0, 0, 1], [1, 2, 3]])
        out = [model.user_embedder(*arguments(graph))(edges, 2)]
        if model.modalities:
            new = {key: x[:3] for key, x in graph.features.items()}
            out.append(model.item_embedder(*arguments(graph))(new))
        return out

    model = model_of(graph, name)
    expected = embedded(model)
    if context in ("half", "bfloat16"):
        dtype = getattr(torch, context)
        with pytest.raises(ValueError, match=rf"got {dtype}\): call model.float\(\) first"):
            embedded(model.to(dtype))
        return
    with torch.autocast("cpu", torch.bfloat16, enabled=context == "autocast"):
        found = embedded(model.double() if context == "double" else model)
    for x, y in zip(found, expected, strict=True):
        agree(x, y, 0.03 if context == "autocast" else 1e-5)
