from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gtc_pyg.nn import ModalityEncoder

MASK = torch.tensor([True, False, True, True, False])


def content(seed: int = 0) -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("in_channels", [3, 50])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_rows_have_mean_zero_and_variance_one(in_channels: int, scale: float) -> None:
    torch.manual_seed(0)
    out = ModalityEncoder(in_channels, 8)(scale * torch.randn(6, in_channels))
    torch.testing.assert_close(out.mean(dim=1), torch.zeros(6), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(dim=1, correction=0), torch.ones(6), rtol=0, atol=0.05)


def test_output_equals_the_normalised_linear_map_row_by_row() -> None:
    torch.manual_seed(0)
    encoder, x = ModalityEncoder(3, 4), content()
    for row, out in zip(x, encoder(x), strict=True):
        y = encoder.lin.weight @ row + encoder.lin.bias
        torch.testing.assert_close(out, (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt())


def test_absent_rows_share_one_learned_vector_whatever_they_hold() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    out, other = encoder(content(0), MASK), encoder(content(1), MASK)
    torch.testing.assert_close(out[~MASK], out[1].expand(2, 8))
    assert torch.equal(out[~MASK], other[~MASK])


def test_a_mask_leaves_present_rows_as_they_are() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    assert torch.equal(encoder(content(), MASK)[MASK], encoder(content())[MASK])


def test_every_parameter_receives_a_gradient() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    encoder(content(), MASK).pow(3).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_gradients() -> None:
    encoder = ModalityEncoder(3, 4, missing=True).double()
    x = content().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: encoder(x, MASK), x)


def test_forward_changes_nothing(unchanged: Callable) -> None:
    encoder, x, mask = ModalityEncoder(3, 8, missing=True), content(), MASK.clone()
    with unchanged(encoder, x, mask):
        encoder(x, mask)


def test_absent_rows_need_a_learned_vector() -> None:
    encoder = ModalityEncoder(3, 8)
    encoder(content(), torch.ones(5, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"'mask' marks absent rows.*missing=True"):
        encoder(content(), MASK)


@pytest.mark.parametrize("shape", [(5, 4), (3,), (2, 5, 3)])
def test_the_wrong_width_is_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"'x' must be \[N, 3\] \(got \["):
        ModalityEncoder(3, 8)(torch.zeros(shape))


def test_reset_draws_all_weights_from_the_seed() -> None:
    encoder = ModalityEncoder(3, 8, missing=True)
    draws = []
    for start in (0.0, 1.0):
        for parameter in encoder.parameters():
            torch.nn.init.constant_(parameter, start)
        torch.manual_seed(0)
        encoder.reset_parameters()
        draws.append(torch.cat([p.detach().flatten() for p in encoder.parameters()]))
    assert torch.equal(*draws)
