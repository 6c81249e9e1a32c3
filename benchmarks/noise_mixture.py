"""A two-dimensional mixture, sampled back by a small network and the cosine schedule.

    python benchmarks/noise_mixture.py                 # five seeds, half a minute each
    python benchmarks/noise_mixture.py --seeds 0 --out /tmp/rows.csv --picture ''

Three Gaussians of unequal weight, direction and spread. The network learns the velocity
``v = signal * noise - sigma * x``, so its noise ``sigma * x_t + signal * v`` is exact where no
signal is left; pure noise is then walked back from the last time to 0 by deterministic steps. The
rows hold how far the samples' moments and mode shares are from the mixture's own, which are known:
each is a share of the true value, and 0.05 is the limit.
"""

import argparse
import copy
import itertools
import sys
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential, SiLU

from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.nn import NoiseSchedule

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import write_rows

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "noise_mixture.csv"
PICTURE = ROOT / "docs" / "images" / "noise_mixture.png"

SHARES = torch.tensor([0.5, 0.3, 0.2])
MEANS = torch.tensor([[-1.0, -0.6], [1.2, -0.4], [0.4, 1.5]])
SPREADS = torch.tensor(
    [[[0.4, 0.0], [0.2, 0.2]], [[0.2, 0.0], [0.1, 0.4]], [[0.5, 0.0], [-0.1, 0.15]]]
)
MEASURES = {
    "mean": "mean, in standard deviations",
    "covariance": "covariance",
    "mode_share": "share of the worst mode",
    "mode_mean": "mean of the worst mode, in its standard deviations",
    "mode_covariance": "covariance of the worst mode",
}


def draw(size: int, generator: torch.Generator) -> Tensor:
    """Points of the mixture, ``[size, 2]``."""
    mode = torch.multinomial(SHARES, size, replacement=True, generator=generator)
    noise = torch.randn(size, 2, 1, generator=generator)
    return MEANS[mode] + (SPREADS[mode] @ noise).squeeze(-1)


class Velocity(Module):
    """The velocity at ``x_t``, from ``x_t`` and the two levels of its time."""

    def __init__(self, schedule: NoiseSchedule, width: int) -> None:
        super().__init__()
        self.schedule = schedule
        self.net = Sequential(
            *(Linear(4, width), SiLU(), Linear(width, width), SiLU()),
            *(Linear(width, width), SiLU(), Linear(width, 2)),
        )

    def forward(self, x_t: Tensor, t: Tensor | int) -> Tensor:
        levels = (level.expand(x_t.size(0), 1) for level in self.schedule.levels(t, x_t))
        return self.net(torch.cat([x_t, *levels], dim=1))


def train(schedule: NoiseSchedule, steps: int, batch: int, width: int, seed: int) -> Velocity:
    """Fresh points each step; what comes back is an average of the weights over steps."""
    torch.manual_seed(seed)
    network = Velocity(schedule, width)
    average = copy.deepcopy(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = draw(batch, generator)
        t, noise = schedule.sample_times(batch, generator), schedule.sample_noise(x, generator)
        signal, sigma = schedule.levels(t, x)
        velocity = network(schedule.add_noise(x, t, noise), t)
        loss = (velocity - (signal * noise - sigma * x)).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), network.parameters(), strict=True):
                slow.lerp_(fast, 0.01)
    return average


@torch.no_grad()
def sample(
    schedule: NoiseSchedule,
    network: Velocity,
    size: int,
    sampling_steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Pure noise walked back to time 0, ``[size, 2]``."""
    times = torch.linspace(schedule.num_steps, 0, sampling_steps + 1).round().long().tolist()
    x = torch.randn(size, 2, generator=generator)
    for t, t_next in itertools.pairwise(times):
        signal, sigma = schedule.levels(t, x)
        x = schedule.step(x, t, t_next, sigma * x + signal * network(x, t))
    return x


def errors(x: Tensor) -> dict[str, float]:
    """How far samples are from the mixture, each as a share of the true value.

    The mean's distance as a share of the standard deviation; the covariance's in the Frobenius
    norm, of all and the worst of the modes; the worst mode's share.
    """
    covs = SPREADS @ SPREADS.mT
    mean = SHARES @ MEANS
    centred = MEANS - mean
    cov = (SHARES.view(-1, 1, 1) * (covs + centred[:, :, None] * centred[:, None])).sum(dim=0)
    density = torch.stack(
        [
            torch.distributions.MultivariateNormal(m, c).log_prob(x) + share.log()
            for m, c, share in zip(MEANS, covs, SHARES, strict=True)
        ]
    )
    mode = density.argmax(dim=0)
    share = torch.bincount(mode, minlength=3) / x.size(0)
    parts = [x[mode == k] for k in range(3)]
    return {
        "mean": ((x.mean(dim=0) - mean).norm() / cov.trace().sqrt()).item(),
        "covariance": ((x.T.cov() - cov).norm() / cov.norm()).item(),
        "mode_share": ((share - SHARES).abs() / SHARES).max().item(),
        "mode_mean": max(
            ((part.mean(dim=0) - m).norm() / c.trace().sqrt()).item()
            for part, m, c in zip(parts, MEANS, covs, strict=True)
        ),
        "mode_covariance": max(
            ((part.T.cov() - c).norm() / c.norm()).item()
            for part, c in zip(parts, covs, strict=True)
        ),
    }


def table(rows: list[dict[str, str]]) -> str:
    """Mean and worst of each measure over seeds, in percent."""
    lines = ["| measure | mean | worst |", "| --- | --- | --- |"]
    for measure, name in MEASURES.items():
        found = [100 * float(row["error"]) for row in rows if row["measure"] == measure]
        lines.append(f"| {name} | {sum(found) / len(found):.1f} % | {max(found):.1f} % |")
    return "\n".join(lines)


def plot(samples: Tensor, truth: Tensor, path: Path) -> None:
    """True and sampled points side by side."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 2, figsize=(8, 4), sharex=True, sharey=True, layout="constrained"
    )
    for axis, x, title in zip(axes, (truth, samples), ("mixture", "sampled"), strict=True):
        axis.plot(*x[:4000].T.numpy(), ".", markersize=1.5, alpha=0.5)
        axis.set(title=title, xlabel="$x_1$", aspect="equal")
    axes[0].set_ylabel("$x_2$")
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    show = "(default: %(default)s)"
    parser.add_argument("--seeds", default="0,1,2,3,4", help=f"comma-separated {show}")
    parser.add_argument("--steps", type=int, default=10_000, help=f"training steps {show}")
    parser.add_argument("--batch", type=int, default=512, help=f"points a step {show}")
    parser.add_argument("--width", type=int, default=128, help=f"of the network {show}")
    parser.add_argument("--samples", type=int, default=50_000, help=f"points to sample {show}")
    parser.add_argument("--sampling-steps", type=int, default=300, help=f"DDIM steps {show}")
    parser.add_argument("--out", type=Path, default=ROWS, help=f"written anew {show}")
    parser.add_argument("--picture", default=str(PICTURE), help=f"of the first seed {show}")
    args = parser.parse_args()
    schedule = NoiseSchedule(kind="cosine")
    rows = []
    for seed in map(int, args.seeds.split(",")):
        network = train(schedule, args.steps, args.batch, args.width, seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        x = sample(schedule, network, args.samples, args.sampling_steps, generator)
        if args.picture and not rows:
            plot(x, draw(4000, generator), Path(args.picture))
        settings = ("steps", "batch", "width", "samples", "sampling_steps")
        found = errors(x)
        print(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
        origin = {"commit": _commit(), "versions": _versions()}
        for measure, value in found.items():
            row = {"seed": seed, "measure": measure, "error": f"{value:.5f}"}
            rows.append({**row, **{name: getattr(args, name) for name in settings}, **origin})
    write_rows(args.out, list(rows[0]), rows)


if __name__ == "__main__":
    main()
