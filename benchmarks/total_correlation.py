"""What TotalCorrelationLoss sees, and what it costs: rows for docs/total_correlation.md."""

import math
import statistics
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Embedding, ModuleList, SiLU
from torch_geometric.nn import MLP

from gtc_pyg.nn import TotalCorrelationLoss
from harness import Experiment, Options
from harness.workers import in_fresh_process
from total_correlation_cost import run_speed

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


def cells(**columns: Sequence[object]) -> list[dict[str, Any]]:
    """All combinations of some columns' values, the last column changing first."""
    return [dict(zip(columns, values, strict=True)) for values in product(*columns.values())]


PLAIN, CHUNKED = [2048, 4096, 8192], [2048, 4096, 8192, 16384, 32768, 50_000]
QUESTIONS: dict[str, tuple[str, list[dict[str, Any]], Callable[..., Any]]] = {
    "gaussians": (
        "truth* num_tensors* seed* threads* bound standard_error logit_scale num_rows num_draws "
        "steps seconds",
        cells(seed=[0, 1, 2], num_tensors=NUM_TENSORS, truth=TRUTHS),
        run_gaussians,
    ),
    "xor": (
        "method* seed* threads* step accuracy num_pairs",
        cells(seed=range(5), method=["total_correlation", "pairs"]),
        run_xor,
    ),
    "scale": (
        "product_scale* num_tensors* dim* seed* threads* start_excess start_gradient bound "
        "logit_scale steps seconds",
        cells(seed=[0, 1, 2], num_tensors=[3, 4, 5], dim=DIMS, product_scale=["none", "sqrt_dim"]),
        run_scale,
    ),
    "memory": (
        "form* num_rows* seed* threads* added_mib seconds",
        cells(form=["plain"], num_rows=PLAIN, seed=[0])
        + cells(form=["chunked"], num_rows=CHUNKED, seed=[0]),
        lambda **cell: in_fresh_process("total_correlation_cost", "run_memory", **cell),
    ),
    "speed": (
        "num_rows* seed* threads* plain_seconds chunked_seconds ratio largest_relative_difference "
        "repeats",
        cells(num_rows=[1024, 2048, 4096, 8192], seed=[0]),
        run_speed,
    ),
}


def experiment_of(name: str) -> Experiment:
    """One of the five measurements."""
    return Experiment(f"total_correlation_{name}", QUESTIONS[name][0])


def rows_of(name: str) -> list[dict[str, str]]:
    """The rows of one of the five measurements; none where it has not begun."""
    return experiment_of(name).rows()


def run(args: Namespace) -> None:
    for name in QUESTIONS if args.name == "all" else [args.name]:
        _, grid, function = QUESTIONS[name]

        def measure(cell: Mapping[str, Any], function: Callable[..., Any] = function) -> Any:
            return function(**{key: value for key, value in cell.items() if key != "threads"})

        shared = {"threads": torch.get_num_threads()}
        experiment_of(name).run([cell | shared for cell in grid], measure)


if __name__ == "__main__":
    parser = Options(__file__)
    parser.add_argument("name", choices=[*QUESTIONS, "all"], help="what to measure")
    parser.start(None, run)
