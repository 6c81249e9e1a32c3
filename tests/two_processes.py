r"""What a function gives in each of two gloo processes."""

from __future__ import annotations

import faulthandler
import math
import signal
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LIMIT = 180.0
"""Seconds that the function may take in both processes, from when both have begun it."""


def in_two_processes(
    function: Callable[[int], Any], folder: Path, limit: float = LIMIT
) -> list[Any]:
    r"""Calls a function of a module with the process's number; what it gives comes back by a file.

    A run of CI once ended in such a test without saying why; a pair that waited is the likely
    cause. So a first pair that does is tried again, with a warning that shows the stacks.

    Raises:
        TimeoutError: When both pairs took over :obj:`limit` seconds; it holds the stacks.
    """
    try:
        return _pair(function, folder / "first", limit)
    except TimeoutError as error:
        warnings.warn(str(error), RuntimeWarning, stacklevel=2)
        return _pair(function, folder / "second", limit)


def _pair(function: Callable[[int], Any], folder: Path, limit: float) -> list[Any]:
    folder.mkdir()
    context = torch.multiprocessing.spawn(_work, (function, folder), nprocs=2, join=False)
    end = math.inf
    while not context.join(timeout=0.5):
        if end == math.inf and len(list(folder.glob("*.begun"))) == 2:
            end = time.monotonic() + limit
        if time.monotonic() > end:
            for process in context.processes:
                process.terminate()  # writes its stacks and ends
            for process in context.processes:
                process.join()
            stacks = [path.read_text() for path in sorted(folder.glob("*.stack"))]
            raise TimeoutError(f"two processes took over {limit:.0f} s:\n" + "\n\n".join(stacks))
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


def _work(number: int, function: Callable[[int], Any], folder: Path) -> None:
    with open(folder / f"{number}.stack", "w") as stack:
        faulthandler.register(signal.SIGTERM, stack, chain=True)
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'rendezvous'}",
            rank=number,
            world_size=2,
            timeout=timedelta(seconds=2 * LIMIT),  # ours comes first
        )
        (folder / f"{number}.begun").touch()
        torch.save(function(number), folder / f"{number}.pt")
        # Neither takes the shared file away while the other still reads it.
        dist.barrier()
        dist.destroy_process_group()
        faulthandler.unregister(signal.SIGTERM)
