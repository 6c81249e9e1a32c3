"""Accuracy on TikTok of training on mini-batches, beside training with the whole graph.

    python benchmarks/minibatch_accuracy.py --root data/tiktok
    python benchmarks/minibatch_accuracy.py --root data/tiktok --fan-out whole 15,10,5 --seed 0
    python benchmarks/minibatch_accuracy.py --report        # fills the table of docs/growth.md

LightGCN, FREEDOM and GTC with the settings of examples/tiktok.py. A fan-out is how many neighbours
are sampled in each hop around a batch ("all" of them: all,all); "whole" has the whole graph in
every step. Both are ranked with the whole graph. A row for each run is appended to --out; runs
whose row is there are skipped, so an interrupted command can be repeated.
"""

import argparse
import runpy
import statistics
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path

import torch

from gtc_pyg.datasets import InteractionDataset, TikTok
from gtc_pyg.experiment import _commit, _versions, train
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.growth_report import NAMES, NONE, PAGE, spread
from benchmarks.rows import append_rows, between, markdown, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "minibatch_accuracy.csv"
EXAMPLE = ROOT / "examples" / "tiktok.py"
HEADER = [
    "model",
    "fan_out",
    "seed",
    "val_recall@20",
    "test_recall@20",
    "best_epoch",
    "epochs",
    "seconds_per_epoch",
    "seconds",
    "threads",
    "commit",
    "versions",
]
KEY = HEADER[:3]
WHOLE = "whole"


def hops_of(fan_out: str) -> list[int]:
    """Neighbours by hop; -1 is all of them."""
    return [-1 if hop == "all" else int(hop) for hop in fan_out.split(",")]


def run_one(dataset: InteractionDataset, model: str, fan_out: str, seed: int) -> dict[str, object]:
    """Trains and ranks once."""
    chosen = runpy.run_path(str(EXAMPLE))["SETTINGS"][model]
    if model != "lightgcn":  # nothing is pruned: mini-batches cannot
        chosen = replace(chosen, model={**chosen.model, "edge_dropout": 0.0})
    hops = None if fan_out == WHOLE else hops_of(fan_out)
    start = time.perf_counter()
    more = {"num_neighbors": hops, "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        result = train(model, dataset, chosen, seed, out=folder, **more)
    return {
        "val_recall@20": f"{result.val['Recall@20']:.6f}",
        "test_recall@20": f"{result.test['Recall@20']:.6f}",
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "seconds_per_epoch": f"{result.seconds_per_epoch:.2f}",
        "seconds": f"{time.perf_counter() - start:.0f}",
    }


def run(args: argparse.Namespace) -> None:
    """All runs that have no row yet, seed by seed."""
    warnings.filterwarnings("ignore", message="Using '.*' without a 'pyg-lib'")
    dataset = TikTok(args.root, pre_transform=ItemKNNGraph(k=10))
    for seed in args.seed:
        for model in args.models:
            for fan_out in args.fan_out:
                done = [[old[key] for key in KEY] for old in read_rows(args.out)]
                if [model, fan_out, str(seed)] in done:
                    continue
                row = dict(zip(KEY, (model, fan_out, seed), strict=True))
                row |= run_one(dataset, model, fan_out, seed) | {"threads": args.threads}
                row |= {"commit": _commit(), "versions": _versions()}
                append_rows(args.out, HEADER, [row])
                shown = [f"{key} {row[key]}" for key in HEADER[:-3] if key != "test_recall@20"]
                print(", ".join(shown), file=sys.stderr, flush=True)


def by_seed(rows: list[dict[str, str]], model: str, fan_out: str) -> dict[int, dict[str, str]]:
    """Seed to row; no seed may stand twice."""
    found = [row for row in rows if (row["model"], row["fan_out"]) == (model, fan_out)]
    seeds = {int(row["seed"]): row for row in found}
    if len(seeds) < len(found):
        raise ValueError(f"a seed stands twice for {model}, {fan_out}")
    return seeds


def accuracy_table(rows: list[dict[str, str]]) -> str:
    """Recall@20 of mini-batches and of the whole graph, and whether they differ.

    Over the seeds that both have: the difference of the means, the sample standard deviation over
    seeds with the whole graph (its spread), and p of a paired two-sided t-test.
    """
    from scipy.stats import ttest_rel

    head = ["", "fan-out", "seeds", "validation", "test", "test, difference", "spread", "p"]
    head += ["best epoch", "s / epoch"]
    body = []
    for model, name in NAMES.items():
        whole = by_seed(rows, model, WHOLE)
        fan_outs = dict.fromkeys(row["fan_out"] for row in rows if row["model"] == model)
        for fan_out in sorted(fan_outs, key=lambda f: (f != WHOLE, f)):
            found = by_seed(rows, model, fan_out)
            val, test = (
                [float(row[f"{split}_recall@20"]) for row in found.values()]
                for split in ("val", "test")
            )
            shown = fan_out if fan_out == WHOLE else fan_out.replace(",", ", ")
            cells = [name, shown, f"{len(found)}", spread(val), spread(test)]
            shared = sorted(set(whole) & set(found))
            if fan_out != WHOLE and len(shared) > 1:
                pair = [[float(of[s]["test_recall@20"]) for s in shared] for of in (found, whole)]
                difference = statistics.fmean(pair[0]) - statistics.fmean(pair[1])
                p = float(ttest_rel(*pair).pvalue)
                cells += [f"{difference:+.4f}", f"{statistics.stdev(pair[1]):.4f}", f"{p:.2f}"]
            else:
                cells += ["", "", ""]
            epochs = statistics.median(int(row["best_epoch"]) for row in found.values())
            seconds = statistics.median(float(row["seconds_per_epoch"]) for row in found.values())
            body.append([*cells, f"{epochs:.0f}", f"{seconds:.1f}"])
    return markdown(head, body) if body else NONE


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default="data/tiktok", help="folder with raw/")
    parser.add_argument("--models", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument(
        "--fan-out",
        type=_fan_out,
        nargs="+",
        default=[WHOLE, "1000,500,200"],
        help="default: whole 1000,500,200",
    )
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the result rows")
    parser.add_argument("--report", action="store_true", help="write the page's table")
    return parser.parse_args(argv)


def _fan_out(text: str) -> str:
    hops = text.split(",")
    if text != WHOLE and not all(hop == "all" or (hop.isdigit() and int(hop)) for hop in hops):
        raise argparse.ArgumentTypeError(f"expected 'whole' or numbers as 15,10,5 (got {text!r})")
    return text


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.report:
        table = accuracy_table(read_rows(args.out))
        write_text(PAGE, between(PAGE.read_text(), "accuracy", table))
    else:
        run(args)
