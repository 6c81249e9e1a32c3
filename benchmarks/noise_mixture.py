"""A two-dimensional mixture, sampled back by a small network and the cosine schedule."""

import copy
import itertools
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Linear, Module, Sequential, SiLU

from gtc_pyg.nn import NoiseSchedule
from harness import DOCS, Experiment, Options, column, figure, markdown, pick, source, write_rows
from harness.stats import Rows

MIXTURE = Experiment(
    "noise_mixture", "seed* measure* error steps batch width samples sampling_steps"
)
PICTURE = DOCS / "images" / "noise_mixture.png"

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


def table(rows: Rows) -> str:
    """Mean and worst of each measure over seeds, in percent."""
    body = []
    for measure, name in MEASURES.items():
        found = [100 * x for x in column(pick(rows, measure=measure), "error")]
        body.append([name, f"{sum(found) / len(found):.1f} %", f"{max(found):.1f} %"])
    return markdown(["measure", "mean", "worst"], body)


def plot(samples: Tensor, truth: Tensor, path: Path) -> None:
    """True and sampled points side by side."""
    with figure(path, 1, 2, figsize=(8, 4), sharex=True, sharey=True) as (_, axes):
        for axis, x, title in zip(axes, (truth, samples), ("mixture", "sampled"), strict=True):
            axis.plot(*x[:4000].T.numpy(), ".", markersize=1.5, alpha=0.5)
            axis.set(title=title, xlabel="$x_1$", aspect="equal")
        axes[0].set_ylabel("$x_2$")


def run(args: Namespace) -> None:
    """All seeds: the rows anew, and a picture of the first one."""
    schedule, rows = NoiseSchedule(kind="cosine"), []
    settings = {name: getattr(args, name) for name in MIXTURE.header[3:-2]}
    for seed in map(int, args.seeds.split(",")):
        network = train(schedule, args.steps, args.batch, args.width, seed)
        generator = torch.Generator().manual_seed(1000 + seed)
        x = sample(schedule, network, args.samples, args.sampling_steps, generator)
        if args.picture and not rows:
            plot(x, draw(4000, generator), Path(args.picture))
        found = errors(x)
        print(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in found.items()), flush=True)
        shared = {"seed": seed, **settings, **source()}
        rows += [{"measure": k, "error": f"{v:.5f}", **shared} for k, v in found.items()]
    write_rows(args.out, MIXTURE.header, rows)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, MIXTURE.path, threads=None)
    parser.add("--seeds", "0,1,2,3,4")
    parser.add("--steps", 10_000, help="training steps")
    parser.add("--batch", 512, help="points a step")
    parser.add("--width", 128, help="of the network")
    parser.add("--samples", 50_000, help="points to sample")
    parser.add("--sampling-steps", 300, help="DDIM steps")
    parser.add("--picture", str(PICTURE), help="of the first seed")
    parser.start(argv, run)


if __name__ == "__main__":
    main()
