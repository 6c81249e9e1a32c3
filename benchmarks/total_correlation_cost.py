"""What the loss costs beside the plain form: memory, each in a fresh process, and seconds."""

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gtc_pyg.functional import draw_permutations, total_correlation
from gtc_pyg.utils.provenance import peak_mib, reset_peak


def plain(tensors: Sequence[Tensor], scale: Tensor, perms: Tensor) -> Tensor:
    """The same loss (``'n'``) as anyone would write it: all logits at once, autograd."""
    num_rows, losses = tensors[0].size(0), []
    rows = torch.arange(num_rows)
    for a, anchor in enumerate(tensors):
        others = [x for b, x in enumerate(tensors) if b != a]
        members = perms[a]
        candidates, positive = torch.ones_like(anchor), torch.ones_like(anchor)
        for other, perm in zip(others, members, strict=True):
            candidates, positive = candidates * other[perm], positive * other
        logits = scale * (anchor @ candidates.t())
        logits = logits.diagonal_scatter(scale * (anchor * positive).sum(dim=1))
        for k in ((members == members[0]).all(dim=0) & (members[0] != rows)).nonzero().view(-1):
            logits[members[0][k], k] = float("-inf")
        losses.append(F.cross_entropy(logits, rows))
    return torch.stack(losses).mean()


def _inputs(num_rows: int, seed: int, dim: int = 64) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(3, num_rows, dim, generator=generator), dim=-1)
    scale = torch.tensor(math.sqrt(dim) / 0.07, requires_grad=True)
    return [row.requires_grad_() for row in x], scale, draw_permutations(3, x[0], generator)


def loss_and_gradients(
    form: str, tensors: list[Tensor], scale: Tensor, perms: Tensor
) -> list[Tensor]:
    if form == "plain":
        loss = plain(tensors, scale, perms)
    else:
        loss = total_correlation(tensors, scale, permutations=perms)
    return [loss.detach(), *torch.autograd.grad(loss, [*tensors, scale])]


def run_memory(form: str, num_rows: int, seed: int) -> dict[str, Any]:
    """Peak resident memory that one forward and backward adds to this process."""
    loss_and_gradients(form, *_inputs(64, seed))  # loads what the first call loads
    inputs = _inputs(num_rows, seed)
    reset_peak()
    before, start = peak_mib(), time.perf_counter()
    loss_and_gradients(form, *inputs)
    seconds = time.perf_counter() - start
    return {"added_mib": f"{peak_mib() - before:.1f}", "seconds": f"{seconds:.2f}"}


def run_speed(num_rows: int, seed: int, repeats: int = 5) -> dict[str, Any]:
    """Medians of forms that take turns, and how far loss and gradients are apart."""
    seconds: dict[str, list[float]] = {"plain": [], "chunked": []}
    inputs, out = _inputs(num_rows, seed), {}
    for turn in range(repeats + 1):
        for form, times in seconds.items():
            start = time.perf_counter()
            out[form] = loss_and_gradients(form, *inputs)
            if turn > 0:
                times.append(time.perf_counter() - start)
    pairs = zip(out["plain"], out["chunked"], strict=True)
    error = max(((y - x).norm() / x.norm()).item() for x, y in pairs)
    plain_seconds, ours = (statistics.median(times) for times in seconds.values())
    return {
        "plain_seconds": f"{plain_seconds:.4f}",
        "chunked_seconds": f"{ours:.4f}",
        "ratio": f"{ours / plain_seconds:.3f}",
        "largest_relative_difference": f"{error:.2e}",
        "repeats": repeats,
    }
