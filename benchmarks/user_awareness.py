"""Does the filter find what each user cares about? Planted data with a known answer.

    python benchmarks/user_awareness.py                       # five seeds: rows, table and picture
    python benchmarks/user_awareness.py --seed 7 --out my.csv

GTC is trained on PlantedPreferences (600 users, 300 items, two modalities of four blocks each)
with the settings of examples/quickstart.py, once with the condition 'user' and once with 'item'.
Measured are

- relevance(u, block): how much the content filtered for u changes when that block of the items'
  content is replaced by its mean, with the gates as they were (``fixed gates``), and with the
  gates of the changed input (``all of the input``);
- share(u, modality): the share of the variance of u's scores that goes when the user's filter drops
  the modality, less the same with the filters of other users (mean of 20 permutations): what the
  user's own filter adds. And, ``erased``, what goes when the modality's content is erased, which is
  not due to filters alone: whose items have something in common in a modality shows in it, too.

Each is taken relative to its mean over users and compared with the truth by the AUC: the chance
that a planted entry is larger than another one (0.5 is guessing). ``preferred`` are the blocks of
the modality that a user prefers, ``all`` those of both. What can be known of the other modality
from a user's few items is limited, and the ``ceiling`` says how far: the AUC of the length of their
items' mean raw content, which is given the blocks. Controls: each user filtered by the gate (of a
share: by the whole filter) of another, 20 permutations, and the condition 'item'.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from scipy.stats import rankdata
from torch import Tensor

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.explain import filter_relevance, filter_share, score_share
from gtc_pyg.lightning import GraphInputs, fit
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, read_rows, write_text
from benchmarks.search import example_settings

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "user_awareness.csv"
PAGE = ROOT / "docs" / "user_awareness.md"
HEADER = [
    "condition",
    "measure",
    "modality",
    "users",
    "seed",
    "auc",
    "recall@20",
    "commit",
    "versions",
]
MODEL = example_settings("quickstart")["gtc"].model
SHOWN = [  # label, condition, measure
    ("relevance of a block, fixed gates", "user", "relevance, fixed gates"),
    ("relevance of a block, all of the input", "user", "relevance, all of the input"),
    ("control: the gate of another user", "user", "relevance, another user's gate"),
    ("condition 'item': alike for all, by construction", "item", "relevance, fixed gates"),
    ("reference: mean raw content of the user's items", "user", "ceiling"),
    ("share of a modality that the user's filter adds", "user", "share, filter's"),
    ("control: the filter of another user", "user", "share, another user's filter"),
    ("condition 'item': nothing, by construction", "item", "share, filter's"),
    ("the filter's weights of the modalities alone", "user", "weights of the modalities"),
    ("share of a modality, erased for everybody", "user", "share, erased"),
    ("the same, condition 'item'", "item", "share, erased"),
]
OF_MODALITIES = {measure for _, _, measure in SHOWN if measure.startswith(("share", "weights"))}


def auc(value: Tensor, truth: Tensor) -> float:
    """Chance that a planted entry of ``value`` [U, B] is larger than another; ties count half."""
    planted = torch.zeros_like(value, dtype=torch.bool).scatter_(1, truth.view(-1, 1), True)
    value = (value / value.mean(dim=0)).round(decimals=5)  # what is equal for all users is a tie
    ranks = torch.from_numpy(rankdata(value)).view_as(value)
    num_right, num_wrong = int(planted.sum()), int((~planted).sum())
    above = float(ranks[planted].sum()) - num_right * (num_right + 1) / 2
    return above / (num_right * num_wrong)


def measure(
    model: GTC, dataset: PlantedPreferences, inputs: GraphInputs, permutations: int = 20
) -> list[tuple[str, str, str, float]]:
    """Rows (measure, modality, users, AUC)."""
    user, blocks = dataset[0]["user"], dataset.block_slices
    edges, rows = inputs.edge_index_dict, []
    generator = torch.Generator().manual_seed(0)
    others = [torch.randperm(dataset.num_users, generator=generator) for _ in range(permutations)]
    graph = model.csr_graph(edges, inputs.edge_weight_dict)

    def fixed(name: str, gate_of: Tensor | None = None) -> Tensor:
        columns = (
            filter_relevance(model, inputs.features, graph, name, b, gate_of) for b in blocks
        )
        return torch.stack(list(columns), dim=1)

    @torch.no_grad()
    def whole(name: str) -> Tensor:
        users, items = torch.arange(dataset.num_users).view(-1, 1), torch.arange(dataset.num_items)

        def content(features: dict[str, Tensor]) -> Tensor:
            filtered = model.filter_content(features, graph)[name]
            return filtered.for_pairs(users, items)

        before, columns = content(inputs.features), []
        for block in blocks:
            x = inputs.features[name].clone()
            x[:, block] = x[:, block].mean(dim=0)
            change = before - content({**inputs.features, name: x})
            columns.append(change.norm(dim=-1).mean(dim=-1).expand(dataset.num_users))
        return torch.stack(columns, dim=1)

    def ceiling(name: str) -> Tensor:
        x = inputs.features[name] - inputs.features[name].mean(dim=0)
        mean = graph.mean_of_items(x)
        return torch.stack([mean[:, block].norm(dim=1) for block in blocks], dim=1)

    for m, name in enumerate(inputs.features):
        truth, prefers = user.preferred_block[:, m], user.preferred_modality == m
        measures: dict[str, list[Tensor]] = {
            "relevance, fixed gates": [fixed(name)],
            "relevance, all of the input": [whole(name)],
            "relevance, another user's gate": [fixed(name, gate_of) for gate_of in others],
            "ceiling": [ceiling(name)],
        }
        for key, values in measures.items():
            for users, chosen in (("preferred", prefers), ("all", torch.ones_like(prefers))):
                mean = statistics.fmean(auc(value[chosen], truth[chosen]) for value in values)
                rows.append((key, name, users, mean))

    def shares(filter_of: Tensor | None = None) -> Tensor:
        found = (filter_share(model, inputs.features, graph, m, filter_of) for m in inputs.features)
        return torch.stack(list(found), dim=1)

    of_others = torch.stack([shares(filter_of) for filter_of in others])
    added = [shares() - of_others.mean(dim=0), *(of_others - of_others.mean(dim=0))]
    # Differences may be negative: relative to their mean over users by subtraction.
    own, *theirs = (auc(1 + x - x.mean(dim=0), user.preferred_modality) for x in added)
    erased = [score_share(model, inputs.features, graph, name) for name in inputs.features]
    filtered = model.filter_content(inputs.features, graph).values()
    weights = torch.stack([f.weight.detach() for f in filtered], dim=1)
    found = {
        "share, filter's": own,
        "share, another user's filter": statistics.fmean(theirs),
        "share, erased": auc(torch.stack(erased, dim=1), user.preferred_modality),
        "weights of the modalities": auc(weights, user.preferred_modality),
    }
    return [*rows, *((key, "both", "all", value) for key, value in found.items())]


def train(
    condition: str,
    seed: int,
    size: tuple[int, int] = (600, 300),
    epochs: int = 60,
    out: Path = ROOT / "outputs" / "user_awareness",
) -> tuple[GTC, PlantedPreferences, GraphInputs, float]:
    dataset = PlantedPreferences(*size, seed=seed, transform=ItemKNNGraph(k=10))
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    torch.manual_seed(seed)
    model = GTC(dataset.num_users, dataset.num_items, widths, condition=condition, **MODEL)
    result = fit(
        model,
        dataset,
        lr=0.01,
        epochs=epochs,
        patience=10,
        seed=seed,
        out=out,
        name=f"{condition}-{seed}",
        progress=False,
    )
    return model, dataset, GraphInputs.from_data(dataset[0]), result.test["Recall@20"]


def run(seeds: list[int], out: Path) -> list[dict[str, str]]:
    for condition in ("user", "item"):
        for seed in seeds:
            done = [(row["condition"], row["seed"]) for row in read_rows(out)]
            if (condition, str(seed)) in done:
                continue
            print(f"condition {condition!r}, seed {seed}", file=sys.stderr)
            model, dataset, inputs, recall = train(condition, seed)
            rows = []
            for key, modality, users, value in measure(model, dataset, inputs):
                cells = (
                    condition,
                    key,
                    modality,
                    users,
                    str(seed),
                    f"{value:.4f}",
                    f"{recall:.4f}",
                )
                rows.append(dict(zip(HEADER, (*cells, _commit(), _versions()), strict=True)))
            append_rows(out, HEADER, rows)
    return read_rows(out)


def _select(rows: list[dict[str, str]], **wanted: str) -> list[float]:
    return [float(r["auc"]) for r in rows if all(r[key] == value for key, value in wanted.items())]


def table(rows: list[dict[str, str]]) -> str:
    """A Markdown table: lowest, mean and highest AUC over seeds and modalities."""

    def cell(**wanted: str) -> str:
        values = _select(rows, **wanted)
        return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    lines = [
        "| AUC, mean (lowest to highest) | preferred modality | both modalities |",
        "|---|---|---|",
    ]
    for label, condition, measure in SHOWN:
        wanted = {"condition": condition, "measure": measure}
        preferred = "" if measure in OF_MODALITIES else cell(**wanted, users="preferred")
        lines.append(f"| {label} | {preferred} | {cell(**wanted, users='all')} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Each seed and modality a point, for each measure."""
    figure, axis = plt.subplots(figsize=(7.6, 3.8), layout="constrained")
    for y, (_, condition, measure) in enumerate(SHOWN):
        users = "all" if measure in OF_MODALITIES else "preferred"
        found = _select(rows, condition=condition, measure=measure, users=users)
        axis.plot(found, [y] * len(found), "o", alpha=0.6)
    axis.axvline(0.5, color="grey", linestyle=":", label="chance")
    axis.axvline(0.9, color="green", linestyle="--", label="0.9")
    axis.set_yticks(range(len(SHOWN)), [label for label, *_ in SHOWN])
    axis.invert_yaxis()
    axis.set(xlabel="AUC (a point for each seed and modality)", xlim=(0.4, 1.02))
    axis.margins(y=0.12)
    axis.legend(loc="center")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--out", type=Path, default=ROWS, help="result rows")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    parser.add_argument("--plot", type=Path, help="draw the picture into this file")
    args = parser.parse_args()
    rows = run(args.seed, args.out)
    print(table(rows))
    if args.write:
        write_text(PAGE, between(PAGE.read_text(), "table", table(rows)))
    if args.plot:
        plot(rows, args.plot)


if __name__ == "__main__":
    main()
