"""What TotalCorrelationLoss sees, and what it costs: rows for docs/total_correlation.md.

    python benchmarks/total_correlation.py gaussians   # the bound against a known truth
    python benchmarks/total_correlation.py xor         # three variables, pairwise independent
    python benchmarks/total_correlation.py scale       # the published product scale and ours
    python benchmarks/total_correlation.py memory      # peak memory, each in a fresh process
    python benchmarks/total_correlation.py speed       # against the plain form
    python benchmarks/total_correlation.py all

Rows are appended to benchmarks/results/total_correlation_<name>.csv after each run; what is there
already is not run again. benchmarks/total_correlation_report.py draws the page's tables and plots.
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Embedding, ModuleList, SiLU
from torch_geometric.nn import MLP

from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.nn import TotalCorrelationLoss

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, read_rows
from benchmarks.total_correlation_cost import in_fresh_process, run_speed

RESULTS = Path(__file__).parent / "results"
TRUTHS, NUM_TENSORS = [0.5, 1.0, 2.0, 3.0], [3, 4]
DIMS = [16, 128]


def correlation_of(truth: float, num_tensors: int, channels: int) -> float:
    """The correlation at which Gaussians have a total correlation of ``truth`` nats.

    Each of ``channels`` dimensions is equicorrelated over the variables, so
    TC = -channels / 2 * log((1 - c)^(T - 1) * (1 + (T - 1) c)), which grows with c.
    """
    low, high = 0.0, 1.0
    for _ in range(60):
        c = (low + high) / 2
        log_det = (num_tensors - 1) * math.log1p(-c) + math.log1p((num_tensors - 1) * c)
        low, high = (c, high) if -channels / 2 * log_det < truth else (low, c)
    return low


def gaussians(
    num_rows: int, num_tensors: int, channels: int, c: float, generator: torch.Generator
) -> Tensor:
    """Fresh rows ``[T, N, channels]`` whose variables correlate by ``c`` in each dimension."""
    shared = torch.randn(1, num_rows, channels, generator=generator)
    own = torch.randn(num_tensors, num_rows, channels, generator=generator)
    return math.sqrt(c) * shared + math.sqrt(1 - c) * own


def train(
    encoders: ModuleList,
    loss: Callable[[list[Tensor]], Tensor],
    parameters: Sequence[torch.nn.Parameter],
    sample: Callable[[], Sequence[Tensor]],
    steps: int,
    lr: float,
) -> Iterator[int]:
    """Trains on fresh rows at each step and yields the number of steps made."""
    optimizer = torch.optim.Adam([*encoders.parameters(), *parameters], lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    for step in range(steps):
        yield step
        optimizer.zero_grad()
        loss([encoder(x) for encoder, x in zip(encoders, sample(), strict=True)]).backward()
        optimizer.step()
        schedule.step()
    yield steps


def run_gaussians(
    truth: float,
    num_tensors: int,
    seed: int,
    dim: int = 64,
    batch_size: int = 512,
    steps: int = 800,
    product_scale: str = "sqrt_dim",
    num_rows: int = 4096,
    num_draws: int = 32,
) -> dict[str, Any]:
    """Trains one network a variable, then bounds the total correlation on fresh rows."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    channels, start = 2, time.perf_counter()
    c = correlation_of(truth, num_tensors, channels)
    encoders = ModuleList(
        MLP([channels, 128, 128, dim], act=SiLU(), norm=None) for _ in range(num_tensors)
    )
    loss = TotalCorrelationLoss(product_scale=product_scale)

    def sample(n: int = batch_size) -> Tensor:
        return gaussians(n, num_tensors, channels, c, generator)

    for _ in train(
        encoders, lambda x: loss(x, generator=generator), [loss.logit_scale], sample, steps, 2e-3
    ):
        pass
    bounds = []
    for _ in range(num_draws):
        with torch.no_grad():
            views = [encoder(x) for encoder, x in zip(encoders, sample(num_rows), strict=True)]
        bounds.append(loss.lower_bound(views, generator=generator).item())
    return {
        "bound": f"{statistics.fmean(bounds):.5f}",
        "standard_error": f"{statistics.stdev(bounds) / math.sqrt(num_draws):.5f}",
        "logit_scale": f"{loss.logit_scale.exp().item():.3f}",
        "num_rows": num_rows,
        "num_draws": num_draws,
        "steps": steps,
        "seconds": f"{time.perf_counter() - start:.1f}",
    }


def run_xor(
    method: str, seed: int, bits: int = 5, batch_size: int = 256, steps: int = 600, every: int = 30
) -> list[dict[str, Any]]:
    """Trains a vector for each of the values of x, y and z = x xor y, and finds z from x and y."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 + seed)
    num_values = 2**bits
    encoders = ModuleList(Embedding(num_values, 64) for _ in range(3))
    one = TotalCorrelationLoss()

    def loss(views: list[Tensor]) -> Tensor:
        if method == "total_correlation":
            return one(views, generator=generator)
        pairs = [one(pair, generator=generator) for pair in combinations(views, 2)]
        return torch.stack(pairs).mean()

    def sample() -> Sequence[Tensor]:
        x, y = torch.randint(num_values, (2, batch_size), generator=generator)
        return x, y, x ^ y

    rows = []
    for step in train(encoders, loss, [one.logit_scale], sample, steps, 1e-2):
        if step % every == 0:
            right = _found(encoders, num_values, method)
            accuracy = f"{right.float().mean().item():.6f}"
            rows.append({"step": step, "accuracy": accuracy, "num_pairs": right.numel()})
    return rows


@torch.no_grad()
def _found(encoders: ModuleList, num_values: int, method: str) -> Tensor:
    """For each pair of values of x and y, whether the z of the highest score is the right one."""
    x, y, z = (F.normalize(encoder.weight, dim=-1) for encoder in encoders)
    i, j = torch.cartesian_prod(torch.arange(num_values), torch.arange(num_values)).t()
    # <x, y>, the third pair, is the same for every z.
    query = x[i] * y[j] if method == "total_correlation" else x[i] + y[j]
    return (query @ z.t()).argmax(dim=1) == i ^ j


def run_scale(product_scale: str, num_tensors: int, dim: int, seed: int) -> dict[str, Any]:
    """How flat the contrast starts on independent unit rows, and what 200 steps reach."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_tensors, 256, dim)
    unit = [F.normalize(x, dim=-1) for x in torch.randn(shape, generator=generator)]
    loss = TotalCorrelationLoss(product_scale=product_scale)
    views = [x.requires_grad_() for x in unit]
    value = loss(views, generator=generator)
    grads = torch.autograd.grad(value, views)
    trained = run_gaussians(
        2.0,
        num_tensors,
        seed,
        dim,
        batch_size=256,
        steps=200,
        product_scale=product_scale,
        num_rows=4096,
        num_draws=4,
    )
    norms = [grad.norm(dim=1).mean().item() * shape[1] for grad in grads]
    return {
        "start_excess": f"{value.item() - math.log(shape[1]):.6f}",
        "start_gradient": f"{statistics.fmean(norms):.6f}",
        **{key: trained[key] for key in ("bound", "logit_scale", "steps", "seconds")},
    }


def append(name: str, keys: dict[str, Any], measure: Callable[[], Any]) -> None:
    """Measures and appends a row or several, unless rows with these keys are there."""
    keys = {**keys, "threads": torch.get_num_threads()}
    if any(all(row[key] == str(value) for key, value in keys.items()) for row in rows_of(name)):
        return
    print(name, *(f"{key}={value}" for key, value in keys.items()), end=": ", flush=True)
    found = measure()
    found = found if isinstance(found, list) else [found]
    print(*(f"{key}={value}" for key, value in found[-1].items()), flush=True)
    source = {"commit": _commit(), "versions": _versions()}
    rows = [{**keys, **row, **source} for row in found]
    append_rows(path_of(name), list(rows[0]), rows)


def path_of(name: str) -> Path:
    """The file of one of the five measurements."""
    return RESULTS / f"total_correlation_{name}.csv"


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one of the five measurements; none where it has not begun."""
    return read_rows(path_of(name))


def measure(name: str, seeds: Sequence[int]) -> None:
    """All that is still missing of one measurement."""
    if name == "gaussians":
        for seed in seeds:
            for t in NUM_TENSORS:
                for truth in TRUTHS:
                    keys = {"truth": truth, "num_tensors": t, "seed": seed}
                    append(name, keys, lambda keys=keys: run_gaussians(**keys))
    elif name == "xor":
        for seed in seeds:
            for method in ("total_correlation", "pairs"):
                keys = {"method": method, "seed": seed}
                append(name, keys, lambda keys=keys: run_xor(**keys))
    elif name == "scale":
        for seed in seeds:
            for t in (3, 4, 5):
                for dim in DIMS:
                    for scale in ("none", "sqrt_dim"):
                        keys = {"product_scale": scale, "num_tensors": t, "dim": dim, "seed": seed}
                        append(name, keys, lambda keys=keys: run_scale(**keys))
    elif name == "memory":
        sizes = {"plain": [2048, 4096, 8192], "chunked": [2048, 4096, 8192, 16384, 32768, 50_000]}
        for form, all_rows in sizes.items():
            for num_rows in all_rows:
                keys = {"form": form, "num_rows": num_rows, "seed": 0}
                args = tuple(keys.values())
                append(name, keys, lambda args=args: in_fresh_process("run_memory", *args))
    else:
        for num_rows in (1024, 2048, 4096, 8192):
            keys = {"num_rows": num_rows, "seed": 0}
            append(name, keys, lambda keys=keys: run_speed(**keys))


SEEDS = {"gaussians": [0, 1, 2], "xor": [0, 1, 2, 3, 4], "scale": [0, 1, 2]}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["gaussians", "xor", "scale", "memory", "speed"]
    parser.add_argument("name", choices=[*names, "all"], help="what to measure")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for name in names if args.name == "all" else [args.name]:
        measure(name, SEEDS.get(name, [0]))
