"""Do explanations name what each user cares about? Planted data with a known answer."""

import statistics
import time
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.explain import Explainer, plot_user
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import GTC
from harness import DOCS, Experiment, Options, column, fill, markdown, pick
from harness.stats import Rows
from user_awareness import VARIANTS, interval, train

EXPLANATIONS = Experiment("explanations", "condition* seed* measure value recall@20")
PAGE, PLOT = DOCS / "explanations.md", DOCS / "images" / "explanation.png"
SHOWN = [  # label, condition, measure
    ("modality of the 20 best new items", "user", "modality, recommended"),
    ("modality of the items that they have", "user", "modality, own items"),
    ("control: the explanation of another user", "user", "another user"),
    ("control: condition 'item', 20 best new items", "item", "modality, recommended"),
    ("the most frequent modality for everybody", "user", "most frequent"),
    ("block of the preferred modality (a guess: 0.25)", "user", "block"),
]


def best_new(model: GTC, inputs: GraphInputs, k: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Scores ``[U, I]``, the best items that a user does not have ``[U, k]``, and their own."""
    with torch.no_grad():
        user_emb, item_emb = model(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
        score = user_emb @ item_emb.t()
    user, item = inputs.edge_index_dict["user", "rates", "item"]
    own = torch.zeros_like(score, dtype=torch.bool)
    own[user, item] = True
    best = score.masked_fill(own, -torch.inf).topk(k).indices
    return score, best, [row.nonzero().view(-1) for row in own]


def measure(
    model: GTC, dataset: PlantedPreferences, inputs: GraphInputs, k: int = 20
) -> dict[str, float]:
    """Measure to value."""
    explainer = Explainer(model, inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
    score, best, own = best_new(model, inputs, k)
    truth, blocks = dataset[0]["user"].preferred_modality, dataset[0]["user"].preferred_block
    found: dict[str, list[Tensor]] = {"recommended": [], "own items": []}
    errors, times, right = [], [], []
    for u in range(dataset.num_users):
        explained = explainer.user(u)
        for kind, items in (("recommended", best[u]), ("own items", own[u])):
            total = torch.zeros(len(inputs.features))
            for item in items.tolist():
                start = time.perf_counter()
                parts = explained.score_parts(item)
                times.append(1000 * (time.perf_counter() - start))
                errors.append(float((parts.by_source.sum() + parts.bias - score[u, item]).abs()))
                total += parts.by_source[1:]
            found[kind].append(total)
        m = int(truth[u])
        filtered = explained.directions(list(inputs.features)[m], k=0)
        ratio = [
            float(filtered.strength[b].sum() / filtered.usual[b].sum())
            for b in dataset.block_slices
        ]
        right.append(float(max(ratio) > min(ratio) and ratio.index(max(ratio)) == blocks[u, m]))
    named = {kind: torch.stack(totals).argmax(dim=1) for kind, totals in found.items()}
    generator = torch.Generator().manual_seed(0)
    others = [torch.randperm(truth.numel(), generator=generator) for _ in range(20)]
    return {
        **{f"modality, {kind}": _share(name == truth) for kind, name in named.items()},
        "another user": statistics.fmean(_share(named["recommended"][o] == truth) for o in others),
        "most frequent": float(truth.bincount().max() / truth.numel()),
        "block": statistics.fmean(right),
        "largest error": max(errors),
        "milliseconds": statistics.median(times),
    }


def _share(right: Tensor) -> float:
    return float(right.float().mean())


def run_one(condition: str, seed: int) -> list[dict[str, str]]:
    """The rows of a condition and seed."""
    model, dataset, inputs, recall = train(condition, seed)
    digits = dict.fromkeys(("largest error", "milliseconds"), ".2g")
    return [
        {"measure": k, "value": f"{x:{digits.get(k, '.4f')}}", "recall@20": f"{recall:.4f}"}
        for k, x in measure(model, dataset, inputs).items()
    ]


def values(rows: Rows, condition: str, measure: str) -> list[float]:
    """Of all seeds."""
    return column(pick(rows, condition=condition, measure=measure), "value")


def table(rows: Rows) -> str:
    """A Markdown table: lowest, mean and highest share of users over the seeds."""
    body = [[label, interval(values(rows, *wanted))] for label, *wanted in SHOWN]
    return markdown(["named is", "share of users, mean (lowest to highest)"], body, "---|")


def draw(user: int, path: Path) -> None:
    """The picture of a user of seed 0."""
    model, dataset, inputs, _ = train("user", 0)
    explainer = Explainer(model, inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
    items = best_new(model, inputs, 10)[1][user].tolist()
    prefers = dataset.modalities[int(dataset[0]["user"].preferred_modality[user])]
    title = f"User {user}, who prefers the {prefers} (planted)"
    shown = plot_user(explainer.user(user), items, label=lambda row: f"item {row}", title=title)
    shown.savefig(path, dpi=100)


def run(args: Namespace) -> None:
    if args.plot is not None:
        draw(args.plot, PLOT)
        return
    grid = [{"condition": name, "seed": seed} for seed in args.seed for name in VARIANTS]
    EXPLANATIONS.run(grid, lambda cell: run_one(**cell), args.out)
    print(table(EXPLANATIONS.rows(args.out)))


def report(args: Namespace) -> None:
    text = table(EXPLANATIONS.rows(args.out))
    print(text)
    fill(PAGE, {"table": text})


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, EXPLANATIONS.path, seeds=range(8))
    parser.add("--plot", type=int, metavar="USER", help="draw this user of seed 0")
    parser.start(argv, run, report)


if __name__ == "__main__":
    main()
