from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gtc_pyg.functional import total_correlation
from gtc_pyg.nn import TotalCorrelationLoss


def views(num_tensors: int, num_rows: int = 8, channels: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (num_tensors, num_rows, channels)
    return list(2 * torch.randn(shape, generator=generator, dtype=torch.double))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.mark.parametrize("negatives", ["n", "n_squared"])
@pytest.mark.parametrize(("product_scale", "power"), [("none", 0.0), ("sqrt_dim", 0.5)])
@pytest.mark.parametrize("num_tensors", [2, 3, 4])
def test_is_the_function_on_unit_rows_at_the_stated_scale(
    num_tensors: int, product_scale: str, power: float, negatives: str
) -> None:
    loss = TotalCorrelationLoss(negatives, product_scale=product_scale).double()
    scale = torch.tensor(4.0 ** (power * (num_tensors - 2)) / 0.07, dtype=torch.double)
    tensors = views(num_tensors)
    unit = [x / x.norm(dim=1, keepdim=True) for x in tensors]
    expected = total_correlation(unit, scale, negatives, generator=seeded())
    out = loss(tensors, generator=seeded())
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-8)


def test_the_published_scale_is_nearly_flat_for_three_tensors_and_ours_is_not() -> None:
    # Of independent rows; a constant logit costs log(64) exactly.
    tensors, excess = views(3, 64, 64), {}
    for product_scale in ("none", "sqrt_dim"):
        loss = TotalCorrelationLoss(product_scale=product_scale).double()
        excess[product_scale] = loss(tensors, generator=seeded()).item() - math.log(64)
    assert abs(excess["none"]) < 0.1
    assert excess["sqrt_dim"] > 0.5


def test_lengths_of_rows_do_not_matter() -> None:
    loss, tensors = TotalCorrelationLoss().double(), views(3)
    longer = [x * torch.rand(8, 1, generator=seeded()).add(0.1) for x in tensors]
    out, expected = (loss(x, generator=seeded()) for x in (longer, tensors))
    torch.testing.assert_close(out, expected)


def test_masks_give_the_loss_of_the_complete_rows() -> None:
    loss, tensors = TotalCorrelationLoss().double(), views(3)
    masks = [None, torch.arange(8) != 2, torch.arange(8) < 6]
    rows = torch.tensor([0, 1, 3, 4, 5])
    expected = loss([x[rows] for x in tensors], generator=seeded())
    torch.testing.assert_close(loss(tensors, masks, seeded()), expected)


def test_incomplete_rows_receive_no_gradient() -> None:
    tensors = [x.requires_grad_() for x in views(3)]
    mask = torch.arange(8) != 2
    TotalCorrelationLoss().double()(tensors, [None, mask, None]).backward()
    for x in tensors:
        assert (x.grad[2] == 0).all()
        assert x.grad[mask].abs().sum() > 0


def test_without_a_complete_row_the_loss_is_zero() -> None:
    masks = [torch.arange(8) < 4, torch.arange(8) >= 4]
    assert TotalCorrelationLoss().double()(views(2), masks).item() == 0


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_change_neither_loss_nor_gradients(chunk_size: int) -> None:
    out = []
    for size in (chunk_size, 8):
        loss = TotalCorrelationLoss(chunk_size=size).double()
        tensors = [x.requires_grad_() for x in views(3)]
        value = loss(tensors, generator=seeded())
        out.append([value, *torch.autograd.grad(value, [*tensors, loss.logit_scale])])
    torch.testing.assert_close(*out, rtol=1e-10, atol=1e-10)


def test_the_scale_starts_as_published_and_receives_a_gradient() -> None:
    loss = TotalCorrelationLoss().double()
    assert loss.logit_scale.item() == pytest.approx(math.log(1 / 0.07))
    loss(views(3)).backward()
    assert loss.logit_scale.grad.abs() > 0


def test_the_scale_has_an_upper_limit() -> None:
    loss = TotalCorrelationLoss(max_logit_scale=3.0).double()
    values = []
    for start in (2.9, 3.0, 50.0):
        torch.nn.init.constant_(loss.logit_scale, start)
        values.append(loss(views(3), generator=seeded()).item())
    assert values[1] == values[2] != values[0]


def test_gradients() -> None:
    loss = TotalCorrelationLoss().double()
    tensors = [x.requires_grad_() for x in views(3, 3, 2)]
    assert torch.autograd.gradcheck(lambda *x: loss(x, generator=seeded()), tensors)


def test_aligned_rows_cost_less_than_shuffled_ones() -> None:
    loss, (x, *_) = TotalCorrelationLoss("n_squared").double(), views(1, 8, 32)
    aligned, shuffled = loss([x, x, x.abs()]), loss([x, x.roll(1, 0), x.abs()])
    assert aligned < shuffled


def test_forward_changes_nothing(unchanged: Callable) -> None:
    loss, tensors = TotalCorrelationLoss().double(), views(3)
    masks = [torch.arange(8) != 1, torch.arange(8) != 2, torch.arange(8) != 3]
    with unchanged(loss, tensors, masks):
        loss(tensors, masks)


@pytest.mark.parametrize("way", ["state_dict", "deepcopy", "pickle", "torch.save"])
def test_a_copy_gives_the_same_loss(way: str) -> None:
    loss = TotalCorrelationLoss("n_squared", chunk_size=3).double()
    torch.nn.init.constant_(loss.logit_scale, 1.5)
    if way == "state_dict":
        copied = TotalCorrelationLoss("n_squared", chunk_size=3).double()
        copied.load_state_dict(loss.state_dict())
    elif way == "deepcopy":
        copied = copy.deepcopy(loss)
    elif way == "pickle":
        copied = pickle.loads(pickle.dumps(loss))
    else:
        buffer = io.BytesIO()
        torch.save(loss, buffer)
        copied = torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)
    assert copied(views(3)) == loss(views(3))


def test_reset_puts_the_scale_back() -> None:
    loss = TotalCorrelationLoss(init_logit_scale=1.25)
    torch.nn.init.zeros_(loss.logit_scale)
    loss.reset_parameters()
    assert loss.logit_scale.item() == 1.25


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"'negatives' must be .* \(got 'all'\)"):
        TotalCorrelationLoss("all")
    with pytest.raises(ValueError, match=r"'product_scale' must be .* \(got 'dim'\)"):
        TotalCorrelationLoss(product_scale="dim")
    with pytest.raises(ValueError, match=r"'chunk_size' must be at least 1 \(got 0\)"):
        TotalCorrelationLoss(chunk_size=0)(views(2))


def test_wrong_inputs_are_named() -> None:
    loss, (a, b) = TotalCorrelationLoss(), views(2)
    with pytest.raises(ValueError, match=r"'tensors' must hold two or more \(got 1\)"):
        loss([a])
    with pytest.raises(ValueError, match=r"one shape.*\[8, 4\], number 1 has \[7, 4\]"):
        loss([a, b[:7]])
    with pytest.raises(ValueError, match=r"'masks' must hold 2 \(got 1\)"):
        loss([a, b], [None])


@pytest.mark.parametrize("length", [1, 3, 9])
def test_a_mask_of_another_length_is_named(length: int) -> None:
    tensors, mask = [torch.randn(8, 4)] * 2, torch.ones(length, dtype=torch.bool)
    with pytest.raises(ValueError, match=rf"'masks' must be \[8\] \(got \[{length}\]\)"):
        TotalCorrelationLoss()(tensors, masks=[None, mask])
