r"""Several processes, as ``torchrun`` starts them: shares of the work, and gradients."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import Parameter

__all__ = [
    "average_gradients",
    "gather_rows",
    "launched",
    "own_rows",
    "own_share",
    "rank",
    "rank_zero_first",
    "world_size",
]

_LONGEST = timedelta(days=1)
_SMALL = 2**16
_NONE, _DENSE, _SPARSE = range(3)
_store: dist.Store | None = None  # for good: where process 0 hosts it, the others still read
_waits = 0


def launched() -> bool:
    r"""Whether ``torchrun`` started this process."""
    return dist.is_available() and dist.is_torchelastic_launched()


def rank() -> int:
    r"""The number of this process; 0 where there is but one.

    Example:
        >>> rank(), world_size()
        (0, 1)
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank()
    return int(os.environ["RANK"]) if launched() else 0


def world_size() -> int:
    r"""The number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def own_share(num: int) -> slice:
    r"""This process's share of ``num`` rows: every row is in one share, shares differ by one row.

    Example:
        >>> own_share(5)
        slice(0, 5, None)
    """
    return slice(num * rank() // world_size(), num * (rank() + 1) // world_size())


def own_rows(num: int) -> tuple[slice, float]:
    r"""This process's rows of a batch, and what their mean weighs.

    With :math:`n_p` of :math:`n` rows on process :math:`p` of :math:`P`, the means of the shares
    times :math:`P n_p / n` average to the mean of the batch, and so do their gradients. A process
    without rows gets the first row and the weight 0, so that it joins in what is done together.

    Args:
        num: Rows of the batch :math:`n`, at least one.

    Example:
        >>> own_rows(5)
        (slice(0, 5, None), 1.0)
    """
    share = own_share(num)
    if share.start == share.stop:
        return slice(0, 1), 0.0
    return share, world_size() * (share.stop - share.start) / num


@contextmanager
def rank_zero_first() -> Iterator[None]:
    r"""The first process enters alone; the others follow when it is done.

    What the first process builds and writes, the others then find: on several machines, in a folder
    that is the same on all of them. If it fails, they fail too.

    .. code-block:: python

        with rank_zero_first():
            dataset = TikTok("data/tiktok", pre_transform=ItemKNNGraph(k=10))

    Raises:
        RuntimeError: On the other processes, where the first one failed.
    """
    global _store, _waits
    if not launched() or int(os.environ["WORLD_SIZE"]) == 1:
        yield
        return
    _waits += 1
    if _store is None:
        _store = next(dist.rendezvous("env://"))[0]
    store = _store
    key = f"gtc_pyg/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{_waits}"
    if int(os.environ["RANK"]) > 0:
        store.wait([key], _LONGEST)
        if store.get(key) != b"done":
            raise RuntimeError("process 0 failed while this one waited for it")
        yield
        return
    try:
        yield
    except BaseException:
        store.set(key, "failed")
        raise
    store.set(key, "done")


@torch.no_grad()
def average_gradients(parameters: Iterable[Parameter]) -> None:
    r"""Replaces every gradient by its mean over the processes.

    Small dense gradients travel in one piece. Of sparse ones (:class:`torch.nn.Embedding` with
    ``sparse=True``) the touched rows alone are gathered, by an operation that gloo and nccl both
    have. A gradient that a process lacks counts as zero there; one that all of them lack stays
    away, so that Adam skips the parameter as it does in one process. One number for each
    parameter tells so, and is waited for.

    Args:
        parameters: The same on all processes; of one, no two processes have a dense and a sparse
            gradient.
    """
    learning = [p for p in parameters if p.requires_grad]
    if world_size() == 1 or not learning:
        return
    dense = []
    for parameter, kind in zip(learning, _kinds(learning), strict=True):
        if kind == _SPARSE:
            parameter.grad = _average_sparse(parameter)
        elif kind == _DENSE:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grad = parameter.grad
            if grad.numel() > _SMALL:
                whole = grad.contiguous()
                dist.all_reduce(whole)
                grad.copy_(whole.div_(world_size()))
            else:
                dense.append(grad)
    for dtype in dict.fromkeys(grad.dtype for grad in dense):  # in one order everywhere
        small = [grad for grad in dense if grad.dtype == dtype]
        flat = torch.cat([grad.reshape(-1) for grad in small])
        dist.all_reduce(flat)
        flat /= world_size()
        for grad, mean in zip(small, flat.split([grad.numel() for grad in small]), strict=True):
            grad.copy_(mean.view_as(grad))


def _kinds(parameters: list[Parameter]) -> list[int]:
    """Which gradient any process has of each."""
    grads = [p.grad for p in parameters]
    own = [_NONE if g is None else _SPARSE if g.is_sparse else _DENSE for g in grads]
    kinds = torch.tensor(own, device=parameters[0].device)
    dist.all_reduce(kinds, dist.ReduceOp.MAX)
    return kinds.tolist()


def _average_sparse(parameter: Parameter) -> Tensor:
    grad = parameter.grad
    if grad is None:
        nothing = torch.empty(1, 0, dtype=torch.long, device=parameter.device)
        grad = torch.sparse_coo_tensor(nothing, parameter[:0], parameter.shape)
    grad = grad.coalesce()
    ids, values = gather_rows(grad.indices()[0]), gather_rows(grad.values())
    mean = torch.cat(values) / world_size()
    return torch.sparse_coo_tensor(torch.cat(ids).view(1, -1), mean, grad.shape).coalesce()


def gather_rows(x: Tensor) -> list[Tensor]:
    r"""The rows ``[N, ...]`` of every process; their numbers may differ. Without gradient.

    Example:
        >>> [rows.tolist() for rows in gather_rows(torch.arange(3))]
        [[0, 1, 2]]
    """
    if world_size() == 1:
        return [x.detach()]
    num = torch.tensor([x.size(0)], device=x.device)
    nums = [torch.empty_like(num) for _ in range(world_size())]
    dist.all_gather(nums, num)
    sizes = [int(n) for n in nums]
    padded = x.new_zeros(max(sizes), *x.shape[1:])
    padded[: x.size(0)] = x
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return [part[:size] for part, size in zip(parts, sizes, strict=True)]
