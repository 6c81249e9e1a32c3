from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gtc_pyg.nn import SimilarityGate, UniformGate


def inputs(num_modalities: int) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, *modalities = torch.randn(num_modalities + 1, 5, 4, generator=generator, dtype=torch.double)
    return x, modalities


@pytest.mark.parametrize("num_modalities", [1, 2, 3, 4, 5])
def test_weights_are_positive_and_sum_to_one(num_modalities: int) -> None:
    out, weight = SimilarityGate()(*inputs(num_modalities))
    assert out.shape == (5, 4)
    assert weight.shape == (5, num_modalities + 1)
    assert (weight > 0).all()
    torch.testing.assert_close(weight.sum(dim=1), torch.ones(5, dtype=torch.double))


@pytest.mark.parametrize("num_modalities", [1, 2, 3, 4, 5])
def test_equals_a_loop_from_the_equation(num_modalities: int) -> None:
    x, modalities = inputs(num_modalities)
    out, weight = SimilarityGate()(x, modalities)
    for i in range(5):
        rows = [x[i], *(r[i] for r in modalities)]
        power = [math.exp(float(x[i] @ r / (x[i].norm() * r.norm()))) for r in rows]
        expected = x[i].clone()
        for k, row in enumerate(rows):
            assert weight[i, k].item() == pytest.approx(power[k] / sum(power))
            expected += power[k] / sum(power) * row
        torch.testing.assert_close(out[i], expected)


@pytest.mark.parametrize("length", [1e-30, 1e-10, 9.0, 1e10, 1e30])
def test_the_length_of_a_modality_wins_no_weight(length: float) -> None:
    x, (a, b) = (x.float() if isinstance(x, Tensor) else [r.float() for r in x] for x in inputs(2))
    expected = SimilarityGate()(x, [a, b])[1]
    torch.testing.assert_close(SimilarityGate()(x, [length * a, b])[1], expected)
    torch.testing.assert_close(SimilarityGate()(length * x, [a, b])[1], expected)


def test_order_of_modalities_does_not_matter() -> None:
    x, (a, b, c) = inputs(3)
    torch.testing.assert_close(SimilarityGate()(x, [a, b, c])[0], SimilarityGate()(x, [c, a, b])[0])


@pytest.mark.parametrize("num_modalities", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("output", [0, 1])
def test_gradients_flow_to_every_input(num_modalities: int, output: int) -> None:
    x, modalities = inputs(num_modalities)
    tensors = [tensor.requires_grad_() for tensor in (x, *modalities)]
    assert torch.autograd.gradcheck(lambda x, *rest: SimilarityGate()(x, rest), tensors)
    SimilarityGate()(x, modalities)[output].pow(2).sum().backward()
    assert all((tensor.grad.abs().sum(dim=1) > 0).all() for tensor in tensors)


def test_rows_of_zeros_give_no_nan() -> None:
    zeros = torch.zeros(2, 4, requires_grad=True)
    out, weight = SimilarityGate()(zeros, [zeros])
    out.sum().backward()
    assert out.isfinite().all()
    assert weight.isfinite().all()
    assert zeros.grad.isfinite().all()


def test_forward_changes_nothing(unchanged: Callable) -> None:
    gate, (x, modalities) = SimilarityGate(), inputs(2)
    with unchanged(gate, x, modalities):
        gate(x, modalities)


def test_shapes_that_do_not_fit_are_named() -> None:
    x, (a, b) = inputs(2)
    with pytest.raises(ValueError, match=r"'modalities' must hold one or more \(got 0\)"):
        SimilarityGate()(x, [])
    with pytest.raises(ValueError, match=r"shape of 'x', \[5, 4\] \(number 1 has \[5, 3\]\)"):
        SimilarityGate()(x, [a, b[:, :3]])
    with pytest.raises(ValueError, match=r"'x' must be \[N, D\] \(got \[4\]\)"):
        SimilarityGate()(x[0], [a[0]])


def test_a_tensor_in_place_of_a_list_is_named() -> None:
    with pytest.raises(ValueError, match=r"'modalities' must be a list .*tensor \[3, 4\]"):
        SimilarityGate()(torch.randn(3, 4), torch.randn(3, 4))


def test_unit_rows_may_be_said_to_be_so() -> None:
    x, image, text = torch.nn.functional.normalize(torch.randn(3, 6, 4).double(), dim=-1)
    outs = [SimilarityGate(normalized)(x, [image, text]) for normalized in (False, True)]
    torch.testing.assert_close(outs[0], outs[1])
    assert repr(SimilarityGate(normalized=True)) == "SimilarityGate(normalized=True)"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_row_of_zeros_has_cosine_zero_and_a_small_gradient(dtype: torch.dtype) -> None:
    x, image = torch.ones(2, 4, dtype=dtype), torch.zeros(2, 4, dtype=dtype, requires_grad=True)
    fused, weight = SimilarityGate()(x, [image])
    torch.testing.assert_close(
        weight[0].float(), torch.tensor([1.0, 0.0]).softmax(0), rtol=1e-2, atol=0
    )
    fused.sum().backward()
    assert image.grad.abs().max() < 1


def test_gradients_can_be_differentiated_again() -> None:
    x, image = torch.randn(2, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, y: SimilarityGate()(x, [y])[0], (x, image))


def test_a_uniform_gate_takes_the_mean() -> None:
    x, modalities = inputs(3)
    out, weight = UniformGate()(x, modalities)
    assert (weight == 0.25).all()
    torch.testing.assert_close(out, x + torch.stack([x, *modalities]).mean(0))
    with pytest.raises(ValueError, match=r"'modalities' must hold one or more \(got 0\)"):
        UniformGate()(x, [])
