"""Do explanations name what each user cares about? Planted data with a known answer.

    python benchmarks/explanations.py                       # eight seeds, two conditions: rows
    python benchmarks/explanations.py --report              # the page's table
    python benchmarks/explanations.py --plot 5              # the page's picture, of user 5

GTC is trained on PlantedPreferences (600 users, 300 items, two modalities of four blocks each)
with the settings of examples/quickstart.py, once with the condition 'user' and once with 'item'. A
row for each seed, condition and measure is appended to --out; a seed and condition whose rows are
there is skipped. The measures are shares of users, but for the last two:

    modality, recommended   the modality with the larger part of the scores of the user's 20 best
                            new items (gtc_pyg.explain.ScoreParts.by_source) is the one they prefer
    modality, own items     the same of the items that they have
    another user            the first, each user given the explanation of another one; mean of 20
                            permutations
    most frequent           the users who prefer what most of them prefer: naming it for everybody
    block                   of the users of a modality, those whose block of it is the one that
                            their filter lets through the most, beside what it lets through for
                            everybody (FilterDirections.strength / usual); 0.25 is a guess
    largest error           difference between the sum of the parts and the score of forward
    milliseconds            to explain one pair of a user who is prepared, median
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.explain import Explainer, plot_user
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import GTC

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, read_rows, write_text
from benchmarks.user_awareness import train

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "explanations.csv"
PAGE = ROOT / "docs" / "explanations.md"
PLOT = ROOT / "docs" / "images" / "explanation.png"
HEADER = ["condition", "seed", "measure", "value", "recall@20", "commit", "versions"]
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


def run(seeds: list[int], out: Path) -> None:
    for seed in seeds:
        for condition in ("user", "item"):
            done = [(row["condition"], row["seed"]) for row in read_rows(out)]
            if (condition, str(seed)) in done:
                continue
            print(f"condition {condition!r}, seed {seed}", file=sys.stderr, flush=True)
            model, dataset, inputs, recall = train(condition, seed)
            rows = []
            for name, value in measure(model, dataset, inputs).items():
                shown = (
                    f"{value:.2g}" if name in ("largest error", "milliseconds") else f"{value:.4f}"
                )
                cells = (condition, str(seed), name, shown, f"{recall:.4f}", _commit(), _versions())
                rows.append(dict(zip(HEADER, cells, strict=True)))
            append_rows(out, HEADER, rows)


def values(rows: list[dict[str, str]], condition: str, measure: str) -> list[float]:
    """Of all seeds."""
    wanted = (condition, measure)
    return [float(r["value"]) for r in rows if (r["condition"], r["measure"]) == wanted]


def table(rows: list[dict[str, str]]) -> str:
    """A Markdown table: lowest, mean and highest share of users over the seeds."""
    lines = ["| named is | share of users, mean (lowest to highest) |", "|---|---|"]
    for label, condition, name in SHOWN:
        found = values(rows, condition, name)
        mean = statistics.fmean(found)
        lines.append(f"| {label} | {mean:.3f} ({min(found):.3f} to {max(found):.3f}) |")
    return "\n".join(lines)


def draw(user: int, path: Path) -> None:
    """The picture of a user of seed 0."""
    model, dataset, inputs, _ = train("user", 0)
    explainer = Explainer(model, inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
    items = best_new(model, inputs, 10)[1][user].tolist()
    prefers = dataset.modalities[int(dataset[0]["user"].preferred_modality[user])]
    figure = plot_user(
        explainer.user(user),
        items,
        label=lambda row: f"item {row}",
        title=f"User {user}, who prefers the {prefers} (planted)",
    )
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--out", type=Path, default=ROWS, help="result rows")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--report", action="store_true", help="put the table into the page")
    parser.add_argument("--plot", type=int, metavar="USER", help="draw this user of seed 0")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.plot is not None:
        draw(args.plot, PLOT)
        return
    if not args.report:
        run(args.seed, args.out)
    rows = read_rows(args.out)
    print(table(rows))
    if args.report:
        write_text(PAGE, between(PAGE.read_text(), "table", table(rows)))


if __name__ == "__main__":
    main()
