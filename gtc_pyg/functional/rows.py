r"""What is done to the rows of dense matrices."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@contextmanager
def full_precision() -> Iterator[None]:
    r"""Switches autocast off inside: sparse products and solvers know no half precision.

    A context, and a decorator of functions.
    """
    with torch.autocast("cpu", enabled=False):
        if not torch.cuda.is_available():
            yield
            return
        with torch.autocast("cuda", enabled=False):
            yield


def upcast(x: Tensor) -> Tensor:
    r"""Half precision as ``float32``; any other tensor as it is.

    Args:
        x: Of any shape.
    """
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


class _NormalizeRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, eps):  # type: ignore[no-untyped-def]
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.reciprocal().masked_fill_(norm < eps, 0)
        out = x * inverse
        ctx.save_for_backward(out, inverse)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_output):  # type: ignore[no-untyped-def]
        out, inverse = ctx.saved_tensors
        along = (grad_output * out).sum(dim=-1, keepdim=True)
        return torch.addcmul(grad_output, out, along, value=-1).mul_(inverse), None


def normalize_rows(x: Tensor, eps: float = 1e-12) -> Tensor:
    r"""Rows at unit length, :math:`x_i / |x_i|`; rows shorter than ``eps`` are zero and get no
    gradient.

    Else what :func:`torch.nn.functional.normalize` computes, whose backward pass is slow on the
    CPU: forward and backward of ``[9308, 64]`` take 0.5 ms this way against 1.6 ms (one thread;
    ``benchmarks/notes.md``). Half precision is computed in floats. Can be differentiated once.

    Args:
        x: ``[..., D]``.
        eps: Shorter rows have no direction.
    """
    return _NormalizeRows.apply(upcast(x), eps).to(x.dtype)
