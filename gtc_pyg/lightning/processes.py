r"""Lightning's options for the processes that ``torchrun`` started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from gtc_pyg.distributed import average_gradients, launched, world_size


class AverageGradients(DDPStrategy):
    r"""Lightning's DDP without torch's wrapper: gradients are averaged once backward is through.

    The wrapper cannot do without a gradient that a batch happens not to need, nor with sparse
    gradients on nccl; :func:`~gtc_pyg.distributed.average_gradients` does with both, at the price
    that nothing is sent while backward still runs. Hooks that Lightning calls before that
    (``on_after_backward``) see the gradients of the own share, not yet averaged;
    ``on_before_optimizer_step`` sees the means.
    """

    def configure_ddp(self) -> None:
        assert self.model is not None
        for tensor in (*self.model.parameters(), *self.model.buffers()):
            dist.broadcast(tensor.detach(), 0)

    def post_backward(self, closure_loss: Tensor) -> None:
        assert self.lightning_module is not None
        average_gradients(self.lightning_module.parameters())


def process_options(trainer_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    r"""Options that go before a caller's: one device without ``torchrun``, else one each.

    gloo on CPUs and nccl on GPUs. Every process keeps its own share of the users, so Lightning must
    not put a sampler of its own into the loaders: that one repeats users to make shares equal.

    Args:
        trainer_kwargs: What a caller wants. In one process ``devices`` may choose one, ``[1]`` say,
            and ``"auto"`` is one.

    Raises:
        ValueError: For several devices without ``torchrun``, fewer devices than processes, a
            number of processes that differs from machine to machine, or another strategy for
            several processes than :class:`AverageGradients`.
    """
    wanted = trainer_kwargs.get("devices", 1)
    wanted_nodes = trainer_kwargs.get("num_nodes", 1)
    if not launched() or world_size() == 1:
        chosen = isinstance(wanted, list | tuple) and len(wanted) == 1
        if not (chosen or wanted in (1, "1", "auto")) or wanted_nodes != 1:
            raise ValueError(
                f"'trainer_kwargs' asks for devices={wanted!r} and num_nodes={wanted_nodes} in one "
                f"process; start one process for each device: torchrun --nproc-per-node 2 SCRIPT"
            )
        return {"devices": list(wanted) if chosen else 1, "num_nodes": 1}
    total, local = world_size(), int(os.environ["LOCAL_WORLD_SIZE"])
    if total % local:
        raise ValueError(
            f"torchrun started {local} of {total} processes here; start as many on each machine, "
            f"by the same --nproc-per-node"
        )
    for name, value, here in (
        ("devices", wanted, local),
        ("num_nodes", wanted_nodes, total // local),
    ):
        if name in trainer_kwargs and value not in (here, str(here), "auto"):
            raise ValueError(
                f"'trainer_kwargs' asks for {name}={value!r}, and torchrun started {local} "
                f"processes on each of {total // local} machines; leave {name!r} out"
            )
    strategy = trainer_kwargs.get("strategy", "auto")
    if strategy == "auto":
        strategy = AverageGradients()
    elif not isinstance(strategy, AverageGradients):
        raise ValueError(
            f"'trainer_kwargs' asks for strategy={strategy!r}; the {total} processes average their "
            f"gradients by AverageGradients: leave 'strategy' out"
        )
    gpus = torch.cuda.device_count()
    if 0 < gpus < local and trainer_kwargs.get("accelerator", "auto") != "cpu":
        raise ValueError(
            f"torchrun started {local} processes on a machine with {gpus} GPUs; start "
            f"--nproc-per-node {gpus}, or set CUDA_VISIBLE_DEVICES= to compute on CPUs"
        )
    return {
        "devices": local,
        "num_nodes": total // local,
        "strategy": strategy,
        "use_distributed_sampler": False,
    }
