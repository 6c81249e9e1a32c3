r"""Laws that every layer keeps: copies, new weights, gradients, half precision, compiling."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import Module

from gtc_pyg.nn import (
    ConditionalDenoiser,
    ModalityEncoder,
    NoiseSchedule,
    SimilarityGate,
    TotalCorrelationLoss,
)

EDGES = torch.tensor([[0, 0, 1, 2, 3, 3, 1], [0, 1, 1, 2, 2, 0, 0]])
TIMES = torch.tensor([1, 100, 300, 600])


class Case(NamedTuple):
    make: Callable[[], Module]
    call: Callable[..., Tensor]  # (layer, *inputs), one tensor
    shapes: list[tuple[int, ...]]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def denoise(layer: Module, *x: Tensor) -> Tensor:
    return layer(x[:2], EDGES, x[2], TIMES)


CASES = {
    "ModalityEncoder": Case(
        lambda: ModalityEncoder(6, 5, missing=True),
        lambda layer, x: layer(x, torch.tensor([True, False, True, True])),
        [(4, 6)],
    ),
    "NoiseSchedule": Case(
        lambda: NoiseSchedule(kind="cosine"),
        lambda layer, x, noise: layer.step(layer.add_noise(x, TIMES, noise), TIMES, 7, noise),
        [(4, 6), (4, 6)],
    ),
    "ConditionalDenoiser": Case(
        lambda: ConditionalDenoiser(6, 3, 5), denoise, [(5, 3), (4, 3), (4, 6)]
    ),
    "TotalCorrelationLoss": Case(
        TotalCorrelationLoss, lambda layer, *x: layer(x, generator=generator()), [(8, 5)] * 3
    ),
    "SimilarityGate": Case(SimilarityGate, lambda layer, x, *rest: layer(x, rest)[0], [(4, 5)] * 4),
}
every_layer = pytest.mark.parametrize("name", CASES)


def layer_and_inputs(name: str, dtype: torch.dtype = torch.float) -> tuple[Module, list[Tensor]]:
    torch.manual_seed(0)
    layer = CASES[name].make().to(dtype)
    return layer, [torch.randn(shape, dtype=dtype) for shape in CASES[name].shapes]


@every_layer
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "state_dict"])
def test_a_copy_computes_the_same(name: str, way: str) -> None:
    layer, x = layer_and_inputs(name)
    if way == "deepcopy":
        copied = copy.deepcopy(layer)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(layer))
    else:
        copied = CASES[name].make()
        copied.load_state_dict(layer.state_dict())
    assert torch.equal(CASES[name].call(copied, *x), CASES[name].call(layer, *x))
    assert not {p.data_ptr() for p in copied.parameters()} & {
        p.data_ptr() for p in layer.parameters()
    }


@every_layer
def test_a_reset_forgets_all_and_follows_the_seed(name: str) -> None:
    layer, _ = layer_and_inputs(name)
    made = [value.clone() for value in layer.state_dict().values()]
    states = []
    for start in (0.0, 1.0):
        for value in layer.state_dict().values():
            value.fill_(start)
        torch.manual_seed(0)
        layer.reset_parameters()
        states.append([value.clone() for value in layer.state_dict().values()])
    for one, other, first in zip(*states, made, strict=True):
        assert torch.equal(one, other)
        assert (one.dim() == 0) == (first.dim() == 0)


@every_layer
def test_it_prints_its_class_and_arguments_in_one_line(name: str) -> None:
    layer, _ = layer_and_inputs(name)
    assert repr(layer).startswith(f"{name}(")
    assert repr(layer).endswith(")")
    assert "\n" not in repr(layer)
    given = {"ModalityEncoder": "6, 5", "NoiseSchedule": "600", "ConditionalDenoiser": "6, 3"}
    assert given.get(name, "") in repr(layer)


class Calling(Module):
    """A layer with the way it is called: tensors in, one tensor out."""

    def __init__(self, layer: Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layer = layer
        self.call = call

    def forward(self, *x: Tensor) -> Tensor:
        return self.call(self.layer, *x)


@every_layer
def test_gradients_equal_differences_in_double_precision(name: str) -> None:
    layer, x = layer_and_inputs(name, torch.double)
    calling = Calling(layer, CASES[name].call)
    names = [name for name, _ in calling.named_parameters()]

    def call(*values: Tensor) -> Tensor:
        weights = dict(zip(names, values[len(x) :], strict=True))
        return torch.func.functional_call(calling, weights, values[: len(x)])

    inputs = [value.detach().clone().requires_grad_() for value in (*x, *calling.parameters())]
    assert torch.autograd.gradcheck(call, inputs)


@every_layer
def test_autocast_stays_near_single_precision(name: str) -> None:
    layer, x = layer_and_inputs(name)
    expected = CASES[name].call(layer, *x)
    x = [value.requires_grad_() for value in x]
    with torch.autocast("cpu", torch.bfloat16):
        out = CASES[name].call(layer, *x)
    out.float().pow(2).sum().backward()
    scale = expected.abs().max().item()
    torch.testing.assert_close(out.float(), expected, rtol=0, atol=0.02 * scale)
    assert all(value.grad.isfinite().all() for value in x)
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)


class Chain(Module):
    """The layers that compile, in one graph: compiling takes seconds a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ModalityEncoder(6, 6)
        self.schedule = NoiseSchedule(kind="cosine")
        self.denoiser = ConditionalDenoiser(6, 6)
        self.gate = SimilarityGate()

    def forward(self, x_user: Tensor, x_item: Tensor, content: Tensor, noise: Tensor) -> Tensor:
        x = self.encoder(content)
        x_t = self.schedule.add_noise(x, TIMES, noise)
        noise = self.denoiser((x_user, x_item), EDGES, x_t, TIMES)
        return self.gate(x_item, [x, self.schedule.predict_start(x_t, 30, noise)])[0]


def chain_and_inputs() -> tuple[Chain, list[Tensor]]:
    torch.manual_seed(0)
    return Chain(), [torch.randn(shape) for shape in ((5, 6), (4, 6), (4, 6), (4, 6))]


def test_layers_trace_into_one_graph_with_the_same_gradients() -> None:
    chain, x = chain_and_inputs()
    results: list[list[Tensor]] = []
    for run in (chain, torch.compile(chain, fullgraph=True, backend="aot_eager")):
        chain.zero_grad()
        out = run(*x)
        out.pow(2).sum().backward()
        results.append([out.detach(), *(p.grad.clone() for p in chain.parameters())])
    torch.testing.assert_close(*results)


@pytest.mark.slow
def test_layers_compile_into_the_same_numbers() -> None:
    chain, x = chain_and_inputs()
    with torch.no_grad():
        out = torch.compile(chain, fullgraph=True)(*x)
        torch.testing.assert_close(out, chain(*x))


def test_total_correlation_is_left_uncompiled() -> None:
    loss, x = layer_and_inputs("TotalCorrelationLoss")
    out = torch.compile(loss, backend="aot_eager")(x, generator=generator())
    torch.testing.assert_close(out, loss(x, generator=generator()))


def test_a_sparse_adjacency_breaks_the_graph_and_no_number() -> None:
    (denoiser, x), weights = layer_and_inputs("ConditionalDenoiser"), torch.ones(7)
    adj = torch.sparse_coo_tensor(EDGES.flip(0), weights, (4, 5)).to_sparse_csr()
    out = torch.compile(denoiser, backend="aot_eager")((x[0], x[1]), adj, x[2], TIMES)
    torch.testing.assert_close(out, denoise(denoiser, *x))
