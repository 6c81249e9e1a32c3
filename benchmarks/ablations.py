"""What carries GTC's gain: its parts left out or replaced, one at a time.

    python benchmarks/ablations.py --dataset tiktok --root data/tiktok            # five seeds
    python benchmarks/ablations.py --dataset tiktok --root data/tiktok --sweep    # sensitivity
    python benchmarks/ablations.py --report                     # tables and plot of the page

The setting is GTC's in the example script of the set; each variant changes one idea of it and
nothing else ("neither" changes two), so no variant was searched for. "no diffusion" has no ranking
loss of the filter either, "without <modality>" takes it out of the item graph as well; "as
published" is GTC.published with the published learning rate and patience. --sweep varies one
number at a time, with seed 0, and looks at validation alone. A row for each run is appended to
--out; what has its row is skipped, so an interrupted command can be repeated, and several may run
at the same time and share the runs.
"""

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import torch

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment import Settings, _commit, _versions, train
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.locks import claimed, lock_of
from benchmarks.options import dataset_parser, with_root
from benchmarks.rows import append_rows, read_rows
from benchmarks.search import DATASETS, GRAPHS, example_settings, to_json

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "ablations.csv"
METRICS = {"recall@20": "Recall@20", "ndcg@20": "NDCG@20", "ndcg@5": "NDCG@5"}
HEADER = [
    "dataset",
    "variant",
    "seed",
    "settings",
    *(f"{split}_{metric}" for split in ("val", "test") for metric in METRICS),
    "best_epoch",
    "epochs",
    "seconds",
    "commit",
    "versions",
]
KEY = HEADER[:3]
WHOLE, LEFT_OUT, PUBLISHED = "GTC", "without ", "as published"


def _model(**changes: Any) -> Callable[[Settings], Settings]:
    return lambda settings: replace(settings, model={**settings.model, **changes})


VARIANTS: dict[str, Callable[[Settings], Settings]] = {
    WHOLE: lambda settings: settings,
    "no diffusion": _model(num_sampling_steps=0, diffusion_weight=0.0, filter_weight=0.0),
    "diffusion, its loss left out": _model(diffusion_weight=0.0),
    "condition 'item'": _model(condition="item"),
    "condition 'neighbors'": _model(condition="neighbors"),
    "no ranking loss of the filter": _model(filter_weight=0.0),
    "no total correlation": _model(total_correlation_weight=0.0),
    "pairwise InfoNCE in its place": _model(alignment="pairwise"),
    "neither": _model(
        num_sampling_steps=0,
        diffusion_weight=0.0,
        filter_weight=0.0,
        total_correlation_weight=0.0,
    ),
    "no similarity gate": _model(similarity_gate=False),
    "users are told no content": _model(content_strength=0.0),
    "no item graph": _model(num_item_layers=0),
    "no low-pass filter": _model(low_pass_strength=0.0),
    "start at random": lambda settings: replace(settings, spectral_start=False),
    "weights not averaged": lambda settings: replace(settings, weight_averaging=0.0),
    "BPR": _model(num_negatives=1),
    PUBLISHED: lambda settings: Settings(
        lr=1e-4, epochs=1000, patience=20, modalities=settings.modalities, model=GTC.PUBLISHED
    ),
}
SWEEP: dict[str, list[float]] = {
    "num_steps": [200, 1000],
    "start_step": [20, 50, 200, 400],
    "diffusion_weight": [0.01, 0.03, 0.3, 1.0],
    "total_correlation_weight": [0.001, 0.003, 0.03, 0.1, 0.3],
    "lr": [0.0005, 0.001, 0.002, 0.004, 0.008],
}


def sweep() -> dict[str, Callable[[Settings], Settings]]:
    """A variant for each value, named ``name=value``."""
    out: dict[str, Callable[[Settings], Settings]] = {}
    for name, values in SWEEP.items():
        for value in values:
            change = _model(**{name: value})
            if name == "lr":
                change = _with_lr(value)
            out[f"{name}={value:g}"] = change
    return out


def _with_lr(lr: float) -> Callable[[Settings], Settings]:
    return lambda settings: replace(settings, lr=lr)


def without(name: str, dataset: str, modalities: Sequence[str]) -> ItemKNNGraph:
    """The set's item graph without one of its modalities."""
    graph = GRAPHS[dataset]
    weights = graph.weights or dict.fromkeys(modalities, 1.0)
    return ItemKNNGraph(graph.k, {m: w for m, w in weights.items() if m != name})


def run_one(dataset: InteractionDataset, settings: Settings, seed: int) -> dict[str, object]:
    """Trains and ranks once."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = train("gtc", dataset, settings, seed, out=folder, progress=False)
    values = {
        f"{split}_{key}": f"{found[name]:.6f}"
        for split, found in (("val", result.val), ("test", result.test))
        for key, name in METRICS.items()
    }
    more = {"best_epoch": result.best_epoch, "epochs": len(result.history)}
    return {**values, **more, "seconds": f"{time.perf_counter() - start:.0f}"}


def run(args: argparse.Namespace) -> None:
    """All runs that have no row yet, seed by seed."""
    warnings.filterwarnings("ignore", message="Using '.*' without a 'pyg-lib'")
    base = example_settings(args.dataset)["gtc"]
    with lock_of(Path(args.root)):  # the first one prepares the data
        dataset = DATASETS[args.dataset](args.root)
    names = list(dataset.modalities)
    variants = sweep() if args.sweep else {**VARIANTS, **{LEFT_OUT + m: _keep(m) for m in names}}
    chosen = args.variants or [name for name in variants if not is_same(variants[name], base, name)]
    unknown = [name for name in chosen if name not in variants]
    if unknown:
        raise ValueError(f"unknown variants {unknown}, expected some of {list(variants)}")
    for seed in [0] if args.sweep else args.seed:
        for name in chosen:
            key = {"dataset": args.dataset, "variant": name, "seed": seed}
            with claimed(args.out, *key.values()) as mine:
                rows = read_rows(args.out)
                done = [r for r in rows if [r[k] for k in KEY] == [str(v) for v in key.values()]]
                settings, data = variants[name](base), dataset
                left_out = name.removeprefix(LEFT_OUT) if name.startswith(LEFT_OUT) else None
                if left_out:
                    kept = [m for m in names if m != left_out]
                    settings = replace(settings, modalities=kept)
                if done and done[0]["settings"] != to_json(settings):
                    raise ValueError(
                        f"{args.out} has {key} of other settings: remove the rows of "
                        f"{args.dataset} and repeat"
                    )
                if done or not mine:
                    continue
                if left_out:
                    graph = without(left_out, args.dataset, names)
                    with lock_of(Path(args.root)):
                        data = DATASETS[args.dataset](args.root, graph)
                commit = _commit()
                row = key | {"settings": to_json(settings)} | run_one(data, settings, seed)
                if args.sweep:
                    row |= {f"test_{metric}": "" for metric in METRICS}
                row |= {"commit": commit, "versions": _versions()}
                with lock_of(args.out.parent):
                    append_rows(args.out, HEADER, [row])
                print(f"{key}: validation {row['val_recall@20']}", file=sys.stderr, flush=True)


def is_same(change: Callable[[Settings], Settings], base: Settings, name: str) -> bool:
    """Whether a variant only says what is so already; the defaults of GTC count as said."""
    if name == WHOLE or name.startswith(LEFT_OUT):
        return False
    said = {key: p.default for key, p in signature(GTC).parameters.items()}
    ours, theirs = (replace(s, model={**said, **s.model}) for s in (base, change(base)))
    return ours == theirs


def _keep(_: str) -> Callable[[Settings], Settings]:
    return lambda settings: settings


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = dataset_parser(__doc__, list(DATASETS), "tiktok", ROWS)
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sweep", action="store_true", help="sensitivity, with seed 0")
    parser.add_argument("--report", action="store_true", help="write the page's tables, draw")
    return with_root(parser.parse_args(argv))


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.report:
        from benchmarks.ablations_report import write

        write(read_rows(args.out))
    else:
        run(args)
