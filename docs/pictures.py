"""Draws the pictures of the pages about ideas into docs/images/.

    python docs/pictures.py                # all; the filter of two users takes two minutes
    python docs/pictures.py pairs factors  # only these

Pictures have no background and colours that read on a light and on a dark page.
"""

import argparse
import itertools
import runpy
from collections.abc import Callable
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import Settings, train
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph

IMAGES = Path(__file__).parent / "images"
GREY, BLUE, ORANGE, GREEN = "#7a838c", "#2f7fc9", "#cc6a1c", "#2b8a5a"
EXAMPLE = Path(__file__).parents[1] / "examples" / "quickstart.py"
MODEL = runpy.run_path(str(EXAMPLE))["SETTINGS"]["gtc"].model
STYLE = {
    "svg.fonttype": "path",
    "svg.hashsalt": "gtc-pyg",
    "font.size": 11,
    "text.color": GREY,
    "axes.labelcolor": GREY,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


def filtered_content(model: GTC, dataset: PlantedPreferences) -> torch.Tensor:
    """How much of each block of each modality reaches a user [U, M * B], the mean user having 1.

    Relevance of the block to what is filtered for the user, with the user's gate, times the weight
    of the modality for the user, on average over items; each item relative to its mean over users.
    """
    inputs = GraphInputs.from_data(dataset[0])
    graph = model.csr_graph(inputs.edge_index_dict, inputs.edge_weight_dict)
    users, items = torch.arange(dataset.num_users).view(-1, 1), torch.arange(dataset.num_items)
    found = []
    with torch.no_grad():
        for name, whole in model.filter_content(inputs.features, graph).items():
            for block in dataset.block_slices:
                x = inputs.features[name].clone()
                x[:, block] = x[:, block].mean(dim=0)
                erased = model.filter_content({**inputs.features, name: x}, graph)[name]
                change = whole.for_pairs(users, items)
                change = change - erased._replace(gate=whole.gate).for_pairs(users, items)
                reached = change.norm(dim=-1) * whole.weight.view(-1, 1)  # [U, I]
                found.append((reached / reached.mean(dim=0)).mean(dim=1))
    return torch.stack(found, dim=1)


def user_filter(path: Path, epochs: int = 60) -> None:
    """What reaches the first two users of planted data, block by block."""
    dataset = PlantedPreferences(600, 300, seed=0, transform=ItemKNNGraph(k=10))
    settings = Settings(lr=0.01, epochs=epochs, model=MODEL)
    model = train("gtc", dataset, settings, seed=0, out="outputs", progress=False).model
    found, user = filtered_content(model, dataset)[:2], dataset[0]["user"]
    names, num_blocks = list(dataset.features), len(dataset.block_slices)
    figure, axes = plt.subplots(2, 1, figsize=(7.2, 4.6), sharex=True, layout="constrained")
    colors = [color for color in (BLUE, ORANGE) for _ in range(num_blocks)]
    where = [i + i // num_blocks for i in range(len(names) * num_blocks)]
    for row, (axis, values) in enumerate(zip(axes, found.tolist(), strict=True)):
        prefers = int(user.preferred_modality[row])
        block = int(user.preferred_block[row, prefers])
        bars = axis.bar(where, values, color=colors, alpha=0.45, width=0.85)
        bars[prefers * num_blocks + block].set_alpha(1)
        axis.axhline(1, color=GREY, linestyle=":", linewidth=1)
        title = f"{'AB'[row]} cares about {names[prefers]}, most of all block {block + 1}"
        axis.set_title(title, loc="left", fontsize=11)
        axis.set_ylim(0, 1.85)
        axis.set_yticks([0, 1], ["0", "mean\nuser"])
        axis.spines[["top", "right"]].set_visible(False)
    labels = [f"{name}\n{block + 1}" for name in names for block in range(num_blocks)]
    axes[1].set_xticks(where, labels)
    figure.supylabel("how much of it reaches the user", fontsize=11, color=GREY)
    _save(figure, path)


def pairs(path: Path) -> None:
    """The exclusive or: four corners of a cube, whose shadows are full squares."""
    figure, axis = plt.subplots(figsize=(6.6, 4.6), layout="constrained")

    def flat(x: float, y: float, z: float) -> tuple[float, float]:
        return 1.0 * x - 0.62 * y, 1.0 * z - 0.30 * x - 0.36 * y

    def line(a: tuple, b: tuple, **style: object) -> None:
        axis.plot(*zip(flat(*a), flat(*b), strict=True), color=GREY, **style)

    corners = list(itertools.product((0, 1), repeat=3))
    for a, b in itertools.combinations(corners, 2):
        if sum(p != q for p, q in zip(a, b, strict=True)) == 1:
            line(a, b, linewidth=1, zorder=1)
    walls = (-0.9, -1.75, -0.9)  # where the shadow falls that drops x, y or z
    shadows: dict[int, list[tuple[float, ...]]] = {0: [], 1: [], 2: []}
    for corner in corners:
        if corner[2] != corner[0] ^ corner[1]:
            continue
        axis.plot(*flat(*corner), "o", color=ORANGE, markersize=15, zorder=3)
        for drop, value in enumerate(walls):
            shadow = [float(v) for v in corner]
            shadow[drop] = value
            shadows[drop].append(tuple(shadow))
            line(corner, tuple(shadow), linestyle=":", linewidth=0.8, alpha=0.6, zorder=0)
    for drop, name in ((0, "y and z"), (1, "x and z"), (2, "x and y")):
        for a, b in itertools.combinations(shadows[drop], 2):
            if sum(p != q for p, q in zip(a, b, strict=True)) == 1:
                line(a, b, linewidth=0.8, alpha=0.7)
        for shadow in shadows[drop]:
            axis.plot(*flat(*shadow), "o", color=BLUE, markersize=11, zorder=2)
        middle = [0.5, 0.5, 0.5]
        middle[drop] = walls[drop]
        axis.text(*flat(*middle), name, ha="center", va="center", fontsize=11)
    for letter, end in zip("xyz", ((1.28, 0, 0), (0, 1.28, 0), (0, 0, 1.25)), strict=True):
        axis.text(*flat(*end), letter, ha="center", va="center", style="italic", fontsize=13)
    axis.set_aspect("equal")
    axis.axis("off")
    _save(figure, path)


def factors(path: Path) -> None:
    """What the factorised form saves: one network per item, one gate per user, none per pair."""
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 3.9), layout="constrained")
    users, items = (0.86, 0.5, 0.14), (0.95, 0.65, 0.35, 0.05)
    edges = ((0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3))
    for axis, title in zip(axes, ("a network for each pair", "factorised"), strict=True):
        axis.set_xlim(-0.08, 1.08)
        axis.set_ylim(-0.22, 1.16)
        axis.axis("off")
        axis.set_title(title, fontsize=12)
        for y in items:
            _box(axis, 0.05, y, "item", BLUE)
        for y in users:
            _box(axis, 0.97, y, "user", ORANGE)
    naive, factorised = axes
    for u, i in edges:
        y = (users[u] + items[i]) / 2
        _arrow(naive, (0.12, items[i]), (0.45, y))
        _box(naive, 0.51, y, "net", GREEN, width=0.09)
        _arrow(naive, (0.57, y), (0.90, users[u]))
    for y in items:
        _arrow(factorised, (0.12, y), (0.22, y))
        _box(factorised, 0.28, y, "net", GREEN, width=0.09)
    for u, i in edges:
        _arrow(factorised, (0.34, items[i]), (0.58, users[u]))
    for y in users:
        factorised.text(0.615, y, "Σ", ha="center", va="center", fontsize=15)
        _arrow(factorised, (0.65, y), (0.70, y))
        _box(factorised, 0.77, y, "gate", ORANGE, width=0.1)
        _arrow(factorised, (0.83, y), (0.90, y))
    naive.text(0.5, -0.17, "networks: interactions", ha="center")
    factorised.text(0.5, -0.17, "networks: items;  gates: users;  sums: interactions", ha="center")
    _save(figure, path)


def _box(axis: Axes, x: float, y: float, text: str, color: str, width: float = 0.11) -> None:
    shape = FancyBboxPatch(
        (x - width / 2, y - 0.045),
        width,
        0.09,
        boxstyle="round,pad=0.012",
        facecolor=color,
        edgecolor="none",
        zorder=2,
    )
    axis.add_patch(shape)
    axis.text(x, y, text, ha="center", va="center", color="white", fontsize=10, zorder=3)


def _arrow(axis: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 9, "color": GREY, "linewidth": 1}
    axis.add_patch(FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, **style))


def _save(figure: plt.Figure, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})
    plt.close(figure)
    print(path)


PICTURES: dict[str, Callable[[Path], None]] = {
    "user_filter": user_filter,
    "pairs": pairs,
    "factors": factors,
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    names = parser.parse_args().names or list(PICTURES)
    for name in names:
        with plt.rc_context(STYLE):
            PICTURES[name](IMAGES / f"{name}.svg")
