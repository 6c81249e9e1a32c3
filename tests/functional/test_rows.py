from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from gtc_pyg.functional import normalize_rows


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 4), (0, 5), (3, 1)])
def test_rows_and_their_gradients_are_those_of_pytorch(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    weight = torch.randn_like(x)
    outs = normalize_rows(x), F.normalize(x, dim=-1)
    grads = [torch.autograd.grad((out * weight).sum(), x)[0] for out in outs]
    torch.testing.assert_close((outs[0], grads[0]), (outs[1], grads[1]))


def test_a_row_by_hand() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    out = normalize_rows(x)
    assert out.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    out[0, 0].backward()  # (1 - 0.6^2) / 5 and -0.6 * 0.8 / 5
    torch.testing.assert_close(x.grad, torch.tensor([[0.128, -0.096], [0.0, 0.0]]))


def test_gradients() -> None:
    x = torch.randn(4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(normalize_rows, x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_rows_without_a_direction_are_zero_and_get_no_gradient(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 0.0], [3e-13, 4e-13], [3.0, 4.0]]).to(dtype).requires_grad_()
    out = normalize_rows(x)
    assert out.dtype == dtype and (out[:2] == 0).all()
    torch.testing.assert_close(out[2].float(), torch.tensor([0.6, 0.8]), rtol=1e-2, atol=0)
    (out * torch.tensor([1.0, 2.0], dtype=dtype)).sum().backward()
    assert (x.grad[:2] == 0).all() and x.grad.isfinite().all()
