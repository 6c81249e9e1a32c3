"""The search of settings: 20 seeded trials for each model and data set, judged on validation alone.

    python benchmarks/search.py --dataset tiktok --models gtc freedom --root data/tiktok
    python benchmarks/search.py --report          # the best trial of each model and set

Trial 0 is the setting of the example script, any other replaces what SPACES lists by values drawn
uniformly and independently. A value is drawn by a generator seeded with (model, data set, trial,
argument): any trial can be made alone, and resumed or parallel commands make the same ones. All
trials have training seed 0.

A trial is stopped after WARM_UP epochs or later, once STARTUP trials of the same model and set have
finished, when its best validation Recall@20 so far lies below the median of what the finished ones
had reached after as many epochs (the median rule). Nothing of the test set is written or shown.

A row for each trial is appended to --out; trials whose row is there are skipped, so an interrupted
command can be repeated, and several may run at the same time and share the trials.

Why not Optuna: what is needed of it here is a random draw and the median rule. Its samplers draw
from one stream in the order of the calls, so a trial could not be made again alone, and it resumes
from a database of its own beside the CSV file that is committed.
"""

import argparse
import json
import random
import runpy
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from gtc_pyg.datasets import InteractionDataset, LFM2k, MMRecFolder, TikTok
from gtc_pyg.experiment import Settings, _commit, _versions, build_model
from gtc_pyg.lightning import fit
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.locks import claimed, lock_of
from benchmarks.options import dataset_parser, with_root
from benchmarks.rows import append_rows, read_rows

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "search.csv"
HEADER = [
    "dataset",
    "model",
    "trial",
    "seed",
    "settings",
    "val_recall@20",
    "val_ndcg@20",
    "val_ndcg@5",
    "best_epoch",
    "epochs",
    "state",
    "seconds",
    "curve",
    "commit",
    "versions",
]
KEY = HEADER[:3]
TRIALS, SEED, WARM_UP, STARTUP = 20, 0, 10, 4
AVERAGING = [0.0, 0.98, 0.99, 0.995]
LONGER: dict[str, list[Any]] = {"epochs": [200], "patience": [10, 20, 40]}  # baselines are cheap
SPACES: dict[str, dict[str, list[Any]]] = {
    "lightgcn": LONGER
    | {
        "lr": [0.0005, 0.001, 0.002, 0.005, 0.01],
        "num_layers": [1, 2, 3, 4],
        "regularization": [0.0, 1e-5, 1e-4, 1e-3],
        "weight_averaging": AVERAGING,
        "spectral_start": [True, False],
    },
    "freedom": LONGER
    | {
        "lr": [0.0005, 0.001, 0.002, 0.005],
        "num_layers": [1, 2, 3],
        "num_item_layers": [1, 2],
        "edge_dropout": [0.0, 0.5, 0.8],
        "modality_weight": [0.0001, 0.001, 0.01, 0.1],
        "weight_averaging": AVERAGING,
        "spectral_start": [True, False],
    },
    "mgcn": LONGER
    | {
        "lr": [0.0005, 0.001, 0.002, 0.005],
        "num_layers": [1, 2, 3],
        "contrast_weight": [0.001, 0.01, 0.1],
        "weight_averaging": AVERAGING,
        "spectral_start": [True, False],
    },
    "gtc": {
        "lr": [0.0005, 0.001, 0.002, 0.005],
        "score_scale": [1.0, 1.5, 2.0, 3.0, 5.0, 8.0],
        "edge_dropout": [0.0, 0.5],
        "content_strength": [0.05, 0.1, 0.3],
        "num_item_layers": [1, 2],
        "num_layers": [2, 3],
        "total_correlation_weight": [0.003, 0.01, 0.03, 0.1],
        "diffusion_weight": [0.03, 0.1],
        "num_negatives": [1, 256, 1024],
        "item_bias": [True, False],
        "low_pass_strength": [0.25, 0.5, 1.0],
        "low_pass_channels": [64, 128, 256],
        "weight_averaging": AVERAGING[1:],
        "spectral_start": [True, False],
    },
}


GRAPHS = {
    "tiktok": ItemKNNGraph(k=10),
    "lfm2k": ItemKNNGraph(k=10),
    "baby": ItemKNNGraph(k=10, weights={"image": 0.1, "text": 0.9}),
}
DATASETS: dict[str, Callable[..., InteractionDataset]] = {
    "tiktok": lambda root, graph=GRAPHS["tiktok"]: TikTok(root, pre_transform=graph),
    "lfm2k": lambda root, graph=GRAPHS["lfm2k"]: LFM2k(root, pre_transform=graph),
    "baby": lambda root, graph=GRAPHS["baby"]: MMRecFolder(root, "baby", pre_transform=graph),
}


def example_settings(dataset: str) -> dict[str, Settings]:
    """The settings of the data set's example script by model."""
    return runpy.run_path(str(ROOT / "examples" / f"{dataset}.py"))["SETTINGS"]


def draw(model: str, dataset: str, trial: int, base: Settings) -> Settings:
    """The settings of a trial, whatever was drawn before: ``base`` itself for trial 0."""
    if trial == 0:
        return base
    drawn = {
        name: random.Random(f"{model}/{dataset}/{trial}/{name}").choice(values)
        for name, values in SPACES[model].items()
    }
    own = {name: drawn.pop(name) for name in {f.name for f in fields(Settings)} & set(drawn)}
    return replace(base, **own, model={**base.model, **drawn})


def to_json(settings: Settings) -> str:
    """All that ``Settings`` has, keys in order; :func:`from_json` reads it."""
    return json.dumps({**asdict(settings), "model": dict(settings.model)}, sort_keys=True)


def from_json(text: str) -> Settings:
    """Settings from a row."""
    return Settings(**json.loads(text))


def is_behind(curve: Sequence[float], finished: Sequence[Sequence[float]]) -> bool:
    """Whether the last running best lies below the median that others had at the same epoch.

    A trial that ended before keeps its last value.
    """
    if len(curve) < WARM_UP or len(finished) < STARTUP:
        return False
    return curve[-1] < statistics.median(o[min(len(curve), len(o)) - 1] for o in finished)


class Pruner(Callback):
    """Keeps the running best of validation Recall@20 and stops a trial that is behind.

    ``finished`` gives the curves to compare with; it is asked after every epoch, so that trials
    which others finish meanwhile count too.
    """

    def __init__(self, finished: Callable[[], Sequence[Sequence[float]]]) -> None:
        self.finished, self.curve, self.pruned = finished, list[float](), False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        value = round(float(trainer.callback_metrics["val/Recall@20"]), 6)
        self.curve.append(max([*self.curve[-1:], value]))
        if is_behind(self.curve, self.finished()):
            self.pruned = trainer.should_stop = True


def run_trial(
    dataset: InteractionDataset,
    model: str,
    settings: Settings,
    finished: Callable[[], Sequence[Sequence[float]]],
) -> dict[str, object]:
    """Trains once; what comes back knows validation alone."""
    start, pruner = time.perf_counter(), Pruner(finished)
    torch.manual_seed(SEED)
    network = build_model(
        model, dataset, settings.modalities, settings.spectral_start, **settings.model
    )
    with tempfile.TemporaryDirectory() as folder:
        result = fit(
            network,
            dataset,
            lr=settings.lr,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            patience=settings.patience,
            weight_averaging=settings.weight_averaging,
            modalities=settings.modalities,
            seed=SEED,
            out=folder,
            progress=False,
            callbacks=[pruner],
        )
    metrics = ("Recall@20", "NDCG@20", "NDCG@5")
    return {
        "seed": SEED,
        "settings": to_json(settings),
        **{f"val_{name.lower()}": f"{result.val[name]:.6f}" for name in metrics},
        "best_epoch": result.best_epoch,
        "epochs": len(result.history),
        "state": "pruned" if pruner.pruned else "finished",
        "seconds": f"{time.perf_counter() - start:.0f}",
        "curve": " ".join(f"{value:g}" for value in pruner.curve),
    }


def curves_of(rows: Sequence[Mapping[str, str]], dataset: str, model: str) -> list[list[float]]:
    """The curves of a model's finished trials on a set."""
    wanted = (dataset, model, "finished")
    found = [row for row in rows if (row["dataset"], row["model"], row["state"]) == wanted]
    return [[float(value) for value in row["curve"].split()] for row in found]


def append_row(path: Path, row: Mapping[str, object]) -> None:
    """Appends a row under a lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path.parent):
        append_rows(path, HEADER, [row])


def search(args: argparse.Namespace) -> None:
    """All trials that have no row yet, trial by trial, the models in turns."""
    warnings.filterwarnings("ignore", message="Using '.*' without a 'pyg-lib'")
    settings = example_settings(args.dataset)
    models = args.models or [model for model in SPACES if model in settings]
    missing = [model for model in models if model not in settings]
    if missing:
        raise ValueError(f"examples/{args.dataset}.py has no settings of {missing}")
    with lock_of(Path(args.root)):  # the first one prepares the data
        dataset = DATASETS[args.dataset](args.root)
    for trial in range(args.trials):
        for model in models:
            chosen = draw(model, args.dataset, trial, settings[model])
            key = {"dataset": args.dataset, "model": model, "trial": trial}
            with claimed(args.out, *key.values()) as mine:
                rows = read_rows(args.out)
                done = [r for r in rows if [r[k] for k in KEY] == [str(v) for v in key.values()]]
                if done and done[0]["settings"] != to_json(chosen):
                    print(f"kept, with other settings than now: {key}", file=sys.stderr)
                if done or not mine:
                    continue
                commit = _commit()
                row: dict[str, object] = key | run_trial(
                    dataset,
                    model,
                    chosen,
                    lambda model=model: curves_of(read_rows(args.out), args.dataset, model),
                )
                append_row(args.out, row | {"commit": commit, "versions": _versions()})
                shown = [f"{name} {row[name]}" for name in HEADER[:-3]]
                print(", ".join(shown), file=sys.stderr, flush=True)


def best_trials(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], Mapping[str, str]]:
    """By set and model the finished trial of highest validation Recall@20, the first of equals."""
    best: dict[tuple[str, str], Mapping[str, str]] = {}
    for row in sorted(rows, key=lambda row: int(row["trial"])):
        key = (row["dataset"], row["model"])
        top = float(best[key]["val_recall@20"]) if key in best else -1.0
        if row["state"] == "finished" and float(row["val_recall@20"]) > top:
            best[key] = row
    return best


def report(rows: Sequence[Mapping[str, str]]) -> str:
    """A line for each set and model: how many trials, and the best one."""
    lines = []
    for (dataset, model), row in best_trials(rows).items():
        states = [r["state"] for r in rows if (r["dataset"], r["model"]) == (dataset, model)]
        lines.append(
            f"{dataset}, {model}: {len(states)} trials, {states.count('pruned')} pruned; best is "
            f"trial {row['trial']}, validation Recall@20 {row['val_recall@20']}, NDCG@20 "
            f"{row['val_ndcg@20']}, NDCG@5 {row['val_ndcg@5']}, epoch {row['best_epoch']}\n"
            f"    {row['settings']}"
        )
    return "\n".join(lines) or "no finished trials yet"


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = dataset_parser(__doc__, list(DATASETS), "tiktok", ROWS)
    parser.add_argument("--models", nargs="+", choices=list(SPACES), help="default: all")
    parser.add_argument("--trials", type=int, default=TRIALS, help=f"default: {TRIALS}")
    parser.add_argument("--report", action="store_true", help="print the best trials")
    return with_root(parser.parse_args(argv))


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.report:
        print(report(read_rows(args.out)))
    else:
        search(args)
