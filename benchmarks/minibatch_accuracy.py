"""Accuracy on TikTok of training on mini-batches, beside training with the whole graph."""

import argparse
import statistics
from collections.abc import Mapping
from functools import cache
from typing import Any

from growth_report import NAMES, NONE, PAGE
from gtc_pyg.datasets import InteractionDataset
from harness import Experiment, Options, by_seed, column, fill, markdown, paired, pick, spread
from harness.data import load, measured, outcome
from harness.settings import changed, example_settings
from harness.stats import Rows

MINIBATCH = Experiment(
    "minibatch_accuracy",
    "model* fan_out* seed* val_recall@20 test_recall@20 best_epoch epochs seconds_per_epoch "
    "seconds threads",
)
WHOLE = "whole"
UNPRUNED = {"lightgcn": {}, "freedom": {"edge_dropout": 0.0}, "gtc": {"edge_dropout": 0.0}}


def hops_of(fan_out: str) -> list[int]:
    """Neighbours by hop; -1 is all of them."""
    return [-1 if hop == "all" else int(hop) for hop in fan_out.split(",")]


def run_one(dataset: InteractionDataset, model: str, fan_out: str, seed: int) -> dict[str, object]:
    """Trains and ranks once; nothing is pruned, as mini-batches cannot."""
    chosen = changed(example_settings("tiktok")[model], UNPRUNED[model])
    hops = None if fan_out == WHOLE else hops_of(fan_out)
    result = measured(model, dataset, chosen, seed, num_neighbors=hops)
    cost = {"seconds_per_epoch": f"{result.seconds_per_epoch:.2f}"}
    return outcome(result, MINIBATCH.header) | cost


def run(args: argparse.Namespace) -> None:
    dataset = cache(lambda: load("tiktok", args.root))

    def measure(cell: Mapping[str, Any]) -> dict[str, object]:
        return run_one(dataset(), **cell) | {"threads": args.threads}

    grid = [
        {"model": model, "fan_out": fan_out, "seed": seed}
        for seed in args.seed
        for model in args.models
        for fan_out in args.fan_out
    ]
    MINIBATCH.run(grid, measure, args.out)


def accuracy_table(rows: Rows) -> str:
    """Recall@20 of mini-batches and of the whole graph, and whether they differ.

    Over the seeds that both have: the difference of the means, the sample standard deviation over
    seeds with the whole graph (its spread), and p of a paired two-sided t-test.
    """
    head = ["", "fan-out", "seeds", "validation", "test", "test, difference", "spread", "p"]
    head += ["best epoch", "s / epoch"]
    body = []
    for model, name in NAMES.items():
        own = pick(rows, model=model)
        whole = by_seed(own, fan_out=WHOLE)
        for fan_out in sorted({row["fan_out"] for row in own}, key=lambda f: (f != WHOLE, f)):
            runs = by_seed(own, fan_out=fan_out)
            test = None if fan_out == WHOLE else paired(runs, whole, "test_recall@20")
            cells = [name, fan_out.replace(",", ", "), str(len(runs))]
            cells += [spread(column(runs.values(), f"{s}_recall@20")) for s in ("val", "test")]
            cells += [f"{test[0]:+.4f}", f"{test[2]:.4f}", f"{test[1]:.2f}"] if test else [""] * 3
            for key, digits in (("best_epoch", 0), ("seconds_per_epoch", 1)):
                cells.append(f"{statistics.median(column(runs.values(), key)):.{digits}f}")
            body.append(cells)
    return markdown(head, body) if body else NONE


def report(args: argparse.Namespace) -> None:
    fill(PAGE, {"accuracy": accuracy_table(MINIBATCH.rows(args.out))})


def _fan_out(text: str) -> str:
    hops = text.split(",")
    if text != WHOLE and not all(hop == "all" or (hop.isdigit() and int(hop)) for hop in hops):
        raise argparse.ArgumentTypeError(f"expected 'whole' or numbers as 15,10,5 (got {text!r})")
    return text


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, MINIBATCH.path, seeds=range(5))
    parser.add("--root", "data/tiktok", help="folder with raw/")
    parser.add("--models", list(NAMES), choices=list(NAMES))
    parser.add("--fan-out", [WHOLE, "1000,500,200"], type=_fan_out)
    parser.start(argv, run, report)


if __name__ == "__main__":
    main()
