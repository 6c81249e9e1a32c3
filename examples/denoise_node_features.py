"""Cleans noisy features of papers by what their authors write about; nothing is recommended.

    python examples/denoise_node_features.py --seed 0

Papers have features that follow from their authors' interests, which nobody tells. Half of the
papers were measured cleanly, the other half through noise. ``ConditionalDenoiser`` learns the noise
on the first half, with a free vector for each author, and cleans the second half. The same layer
that is not told the authors (condition 'item') shows what they are worth.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

import torch
from torch_geometric.utils import scatter

from gtc_pyg.nn import ConditionalDenoiser, NoiseSchedule


def make_papers(num_papers: int = 2000, num_authors: int = 200, channels: int = 16):
    """Clean features [P, D] and who wrote what [2, E]: a nonlinear map of the authors' mean."""
    interests = torch.randn(num_authors, 4)
    author = torch.randint(num_authors, (num_papers * 3,))
    paper = torch.arange(num_papers).repeat_interleave(3)
    topic = scatter(interests[author], paper, reduce="mean") * 3**0.5
    x = torch.tanh(topic @ torch.randn(4, 32)) @ torch.randn(32, channels)
    return (x - x.mean(dim=0)) / x.std(dim=0), torch.stack([author, paper])


def clean_by(condition: str, x, edges, t: int, schedule: NoiseSchedule, epochs: int = 200):
    """Mean squared error on the second half of the papers, after learning on the first."""
    half = x.size(0) // 2
    authors = torch.nn.Embedding(int(edges[0].max()) + 1, 16)
    denoiser = ConditionalDenoiser(x.size(1), 16, hidden_channels=64, condition=condition)
    papers = torch.zeros(x.size(0), 16)  # they have no embedding of their own
    known = edges[:, edges[1] < half]
    weights = torch.nn.ModuleList([authors, denoiser]).parameters()
    optimizer = torch.optim.Adam(weights, lr=0.01, weight_decay=1e-4)
    for _ in range(epochs):
        times, noise = schedule.sample_times(half), schedule.sample_noise(x[:half])
        x_t = schedule.add_noise(x[:half], times, noise)
        predicted = denoiser((authors.weight, papers[:half]), known, x_t, times)
        optimizer.zero_grad()
        (predicted - noise).pow(2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        x_t = schedule.add_noise(x, t, schedule.sample_noise(x, torch.Generator().manual_seed(1)))
        predicted = denoiser((authors.weight, papers), edges, x_t, t)
        return (schedule.predict_start(x_t, t, predicted) - x)[half:].pow(2).mean().item()


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of data and weights")
    torch.manual_seed(parser.parse_args().seed)
    schedule, (x, edges), t = NoiseSchedule(100, "cosine"), make_papers(), 60
    signal, sigma = schedule.levels(t, x)
    print(f"noisy papers           mean squared error {(sigma / signal) ** 2:.2f}")
    for condition, name in (("item", "not told the authors"), ("user", "told the authors")):
        print(f"{name:<22} mean squared error {clean_by(condition, x, edges, t, schedule):.2f}")
