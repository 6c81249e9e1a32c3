"""What a step is made of: operations, bytes and seconds by group of operators."""

import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

GROUPS = {
    "gathers and scatters": "index index_select index_add index_put gather scatter embedding "
    "embedding_dense_backward searchsorted sort _unique2",
    "filling and copying": "new_zeros zeros zeros_like ones ones_like fill zero full copy clone "
    "cat stack _to_copy slice_backward select_backward",
    "random numbers": "rand randn randint randint_like randperm",
    "optimizer": "_fused_adam _foreach_add",
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names.split()}


class StepCounter(TorchDispatchMode):
    """Operations, bytes and seconds of what runs inside, by group of operators.

    Products: ``2 m k n`` operations, ``2 nnz n`` where one is sparse; operands read once, the
    result written once. Gathered and scattered rows: read once, written once. Adam: parameters,
    gradients and both states read, all but gradients written. All else counts as fused into these:
    nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, dict[str, float]] = {}
        self.shapes: Counter[tuple[int, int, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        out = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - start
        name = func._overloadpacket.__name__
        group = "views" if func.is_view else GROUP_OF.get(name.rstrip("_"), "elementwise")
        flops = moved = 0
        if name in ("mm", "addmm", "addmm_"):
            left, right = args[-2:]
            added = [] if name == "mm" or (kwargs or {}).get("beta", 1) == 0 else args[:1]
            moved = sum(map(_bytes, [left, right, out, *added]))
            if left.layout == torch.strided:
                shape = (*left.shape, right.size(1))
                group, flops = "dense products", 2 * left.numel() * right.size(1)
                self.shapes[shape] += 1
            else:
                group, flops = "sparse products", 2 * left.values().numel() * right.size(1)
        elif func._overloadpacket in flop_registry:
            raise NotImplementedError(f"the floor does not count {name!r} yet")
        elif name in ("index_select", "embedding"):
            moved = 2 * _bytes(out)
        elif name in ("index_add", "embedding_dense_backward"):
            moved = 2 * _bytes(args[-1] if name == "index_add" else args[0])
        elif name == "_fused_adam_":
            moved = 7 * sum(map(_bytes, args[0]))
        row = self.groups.setdefault(
            group, dict.fromkeys(("calls", "seconds", "flops", "bytes"), 0)
        )
        for key, value in zip(row, (1, seconds, flops, moved), strict=True):
            row[key] += value
        return out


def _bytes(x: torch.Tensor) -> int:
    if x.layout == torch.strided:
        return x.numel() * x.element_size()
    return sum(map(_bytes, (x.crow_indices(), x.col_indices(), x.values())))
