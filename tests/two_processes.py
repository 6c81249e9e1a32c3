r"""What a function gives in each of two gloo processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


def in_two_processes(function: Callable[[int], dict], folder: Path) -> list[dict]:
    r"""Calls a function of a module with the process's number; its tensors come back by a file."""
    torch.multiprocessing.spawn(_work, (function, folder), nprocs=2)
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


def _work(number: int, function: Callable[[int], dict], folder: Path) -> None:
    torch.set_num_threads(1)
    init = f"file://{folder / 'init'}"
    dist.init_process_group(
        "gloo", init_method=init, rank=number, world_size=2, timeout=timedelta(minutes=2)
    )
    torch.save(function(number), folder / f"{number}.pt")
    dist.destroy_process_group()
