r"""One command from a dataset to a table and result rows: what every example script shares."""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gtc_pyg._version import __version__
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.distributed import rank, world_size
from gtc_pyg.evaluation import KS, METRICS
from gtc_pyg.lightning import FitResult, fit
from gtc_pyg.models import FREEDOM, GTC, MGCN, GraphRecommender, LightGCN
from gtc_pyg.transforms import ItemKNNGraph

__all__ = [
    "DEFAULTS",
    "HEADER",
    "Settings",
    "append_rows",
    "build_model",
    "default_graph",
    "format_table",
    "parse_args",
    "run",
    "train",
]

HEADER = [
    "dataset",
    "model",
    "preset",
    "seed",
    "split",
    "metric",
    "k",
    "value",
    "best_epoch",
    "seconds_per_epoch",
    "peak_mib",
    "features",
    "commit",
    "versions",
]
MODELS: dict[str, Callable[..., GraphRecommender]] = {
    "lightgcn": LightGCN,
    "freedom": FREEDOM,
    "mgcn": MGCN,
    "gtc": GTC,
}
NAMES = {"gtc": "GTC", "mgcn": "MGCN", "freedom": "FREEDOM", "lightgcn": "LightGCN"}


@dataclass(frozen=True)
class Settings:
    r"""How one model is trained on one dataset; chosen on validation."""

    lr: float = 1e-3
    epochs: int = 100
    patience: int = 10
    batch_size: int = 2048
    modalities: Sequence[str] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    spectral_start: bool = False
    """Whether ID embeddings start from the training interactions."""
    weight_averaging: float = 0.0
    """As in :func:`gtc_pyg.lightning.fit`."""


DEFAULTS = {
    "gtc": Settings(
        lr=0.002,
        epochs=45,
        model={
            "edge_dropout": 0.5,
            "content_strength": 0.3,
            "score_scale": 1.5,
            "num_negatives": 1024,
            "item_bias": True,
        },
        spectral_start=True,
        weight_averaging=0.99,
    ),
    "mgcn": Settings(lr=0.001, epochs=120),
    "freedom": Settings(lr=0.001, epochs=120),
    "lightgcn": Settings(lr=0.002, epochs=120),
}
r"""The default preset, for data without settings of its own.

GTC's settings were found on Amazon Baby's validation interactions, with graph-derived features; the
baselines' follow published ones. No other set was looked at for them. :func:`default_graph` makes
the item graph that goes with them.
"""


def default_graph(modalities: Sequence[str]) -> ItemKNNGraph:
    r"""The item graph of the default preset: ten neighbours.

    Text weighs 0.9 and the others share 0.1, as FREEDOM's published configuration has it for text
    and images; without text, or with nothing else, all weigh the same.

    Args:
        modalities: Names of the content.
    """
    num_others = len(set(modalities) - {"text"})
    if num_others in (0, len(modalities)):
        return ItemKNNGraph(k=10)
    weights = {name: 0.9 if name == "text" else 0.1 / num_others for name in modalities}
    return ItemKNNGraph(k=10, weights=weights)


def build_model(
    name: str,
    dataset: InteractionDataset,
    modalities: Sequence[str] | None = None,
    spectral_start: bool = False,
    **settings: Any,
) -> GraphRecommender:
    r"""A recommender by name, sized for a dataset.

    Args:
        name: ``'gtc'``, ``'mgcn'``, ``'freedom'`` or ``'lightgcn'``.
        dataset: Gives the numbers of users and items and the widths of the content.
        modalities: Content to use; all of it where ``None``.
        spectral_start: Whether ID embeddings start from the training interactions
            (:meth:`~gtc_pyg.models.GraphRecommender.start_from`).
        **settings: Arguments of the model. GTC's ``incomplete`` is that of the dataset where it is
            not given.

    Raises:
        ValueError: For an unknown model.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    sizes: list[Any] = [dataset.num_users, dataset.num_items]
    if name != "lightgcn":
        names = dataset.modalities if modalities is None else modalities
        sizes.append({m: dataset.features[m].size(1) for m in names})
        if name == "gtc":
            lacking = [m for m in dataset.incomplete if m in names]
            settings = {"incomplete": lacking, **settings}
    model = MODELS[name](*sizes, **settings)
    if spectral_start:
        model.start_from(dataset[0]["user", "rates", "item"].edge_index)
    return model


def train(
    model_name: str, dataset: InteractionDataset, settings: Settings, seed: int = 0, **more: Any
) -> FitResult:
    r"""Draws a recommender's weights and trains it as the settings say.

    Args:
        model_name: ``name`` in :func:`build_model`.
        dataset: As in :func:`build_model`.
        settings: How.
        seed: Seeds all that is random.
        **more: Further arguments of :func:`gtc_pyg.lightning.fit`, which go before the settings'.
    """
    torch.manual_seed(seed)
    model = build_model(
        model_name, dataset, settings.modalities, settings.spectral_start, **settings.model
    )
    _reset_peak()
    named = ("lr", "epochs", "batch_size", "patience", "weight_averaging", "modalities")
    chosen = {key: getattr(settings, key) for key in named}
    options: dict[str, Any] = {**chosen, "seed": seed, **more}
    return fit(model, dataset, **options)


def parse_args(
    description: str | None,
    root: str | None = None,
    argv: Sequence[str] | None = None,
) -> argparse.Namespace:
    r"""The options that all example scripts take.

    Args:
        description: The script's docstring.
        root: Default of ``--root``; no such option where ``None``.
        argv: Arguments; those of the command line where ``None``.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="several processes: torchrun --nproc-per-node 2 -- examples/NAME.py [options]",
    )
    if root is not None:
        parser.add_argument("--root", default=root, help=f"folder with raw/ (default: {root})")
    parser.add_argument(
        "--models",
        type=_models,
        help=f"comma-separated, of {','.join(MODELS)} (default: all that the script has)",
    )
    parser.add_argument("--epochs", type=_positive, help="largest number (default: the settings')")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="one or more (default: 0)")
    parser.add_argument("--threads", type=_positive, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--out", type=Path, help="append the result rows to this CSV file")
    parser.add_argument("--preset", default="default", help="name of the settings in the rows")
    parser.add_argument("--logs", type=Path, default=Path("outputs"), help="checkpoints and logs")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="write the trained recommender to this folder (of several runs DIR/MODEL-SEED), for "
        "gtc_pyg.recommend.Recommender.load",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(argv)


def _models(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown {unknown}, expected some of {list(MODELS)}")
    return names


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def run(
    name: str,
    dataset: InteractionDataset,
    settings: Mapping[str, Settings],
    args: argparse.Namespace,
) -> dict[str, list[FitResult]]:
    r"""Trains the chosen models with the chosen seeds, prints the table, appends the rows.

    Rows are appended after each run, so an interrupted command keeps what it finished. Of several
    processes (``torchrun``) the first one alone prints and writes.

    Args:
        name: Name of the dataset in the rows.
        dataset: Interactions with content and an item graph.
        settings: For each model.
        args: As :func:`parse_args` gives them.

    Returns:
        The runs of each model, one for each seed.

    Raises:
        ValueError: For a model that has no settings.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.save:
        from gtc_pyg.recommend import Recommender  # an extra of its own; missing, it says so now
    results: dict[str, list[FitResult]] = {}
    for model_name in args.models or settings:
        if model_name not in settings:
            raise ValueError(f"no settings for {model_name!r}: there are {', '.join(settings)}")
        chosen = settings[model_name]
        for seed in args.seed:
            if rank() == 0:
                print(f"{NAMES[model_name]} on {name}, seed {seed}", file=sys.stderr)
            more = {"epochs": args.epochs} if args.epochs else {}
            result = train(
                model_name,
                dataset,
                chosen,
                seed,
                out=args.logs / name,
                name=f"{model_name}-{seed}",
                progress=not args.quiet,
                **more,
            )
            results.setdefault(model_name, []).append(result)
            if args.save and rank() == 0:
                several = len(args.seed) * len(args.models or settings) > 1
                place = args.save / f"{model_name}-{seed}" if several else args.save
                saved = Recommender(result.model, dataset, chosen.modalities).save(place)
                print(f"saved to {saved}", file=sys.stderr)
            if args.out and rank() == 0:
                shared = {
                    "dataset": name,
                    "model": model_name,
                    "preset": args.preset,
                    "seed": seed,
                    "features": _features(dataset, chosen, model_name),
                }
                append_rows(args.out, _rows(shared, result, _peak_mib()))
    table = {NAMES[key]: [result.test for result in runs] for key, runs in results.items()}
    if rank() == 0:
        print(f"\n{name}, test" + (f", mean of seeds {args.seed}" if len(args.seed) > 1 else ""))
        print(format_table(table))
    return results


def format_table(table: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    r"""Rows of models, columns of metrics; with several seeds the standard deviation below.

    Args:
        table: Name of the model to the metrics of each seed.
    """
    columns = [f"{metric}@{k}" for metric in METRICS for k in KS]
    width = max(10, *(len(name) + 1 for name in table))
    lines = [" " * width + " ".join(f"{column:>12}" for column in columns)]
    for name, runs in table.items():
        means = [statistics.fmean(run[column] for run in runs) for column in columns]
        lines.append(f"{name:<{width}}" + " ".join(f"{value:12.4f}" for value in means))
        if len(runs) > 1:
            spread = [statistics.stdev(run[column] for run in runs) for column in columns]
            cells = [f"±{value:.4f}" for value in spread]
            lines.append(" " * width + " ".join(f"{cell:>12}" for cell in cells))
    return "\n".join(lines)


def append_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    r"""Appends result rows to a CSV file, which is written beside and renamed.

    Raises:
        ValueError: Where the file has another header.
    """
    path = Path(path)
    old = ""
    if path.exists():
        old = path.read_text()
        header = old.partition("\n")[0].strip()
        if header != ",".join(HEADER):
            raise ValueError(
                f"{path} has the header {header!r}, expected {','.join(HEADER)!r}; "
                f"choose another file with --out"
            )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("w", newline="") as file:
        file.write(old)
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        if not old:
            writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, path)


def _rows(shared: Mapping[str, Any], result: FitResult, peak: float) -> list[dict[str, Any]]:
    cost = {
        "best_epoch": result.best_epoch,
        "seconds_per_epoch": f"{result.seconds_per_epoch:.3f}",
        "peak_mib": f"{peak:.0f}",
        "commit": _commit(),
        "versions": _versions(),
    }
    return [
        {
            **shared,
            **cost,
            "split": split,
            "metric": metric.lower(),
            "k": k,
            "value": f"{values[f'{metric}@{k}']:.6f}",
        }
        for split, values in (("val", result.val), ("test", result.test))
        for metric in METRICS
        for k in KS
    ]


def _features(dataset: InteractionDataset, settings: Settings, model: str) -> str:
    if model == "lightgcn":
        return "none"
    names = settings.modalities or dataset.modalities
    derived = [name for name in names if name in dataset.graph_derived]
    made = getattr(dataset, "encoders", {})
    label = "+".join(f"{name} ({made[name]})" if name in made else name for name in names)
    return label if not derived else f"{label} (graph-derived features: {'+'.join(derived)})"


def _commit() -> str:
    folder = Path(__file__).parent
    try:
        # Fails where the package lies in somebody else's repository, in a virtual environment say.
        tracked = ["git", "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, cwd=folder, capture_output=True, check=True)
        command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def _versions() -> str:
    names = ("torch", "torch-geometric", "lightning", "numpy")
    found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    machine = f"{platform.machine()} {torch.get_num_threads()} threads"
    if world_size() > 1:
        machine += f" in each of {world_size()} processes"
    return "; ".join(
        [f"gtc-pyg {__version__}", *found, f"python {platform.python_version()}", machine]
    )


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak_mib() -> float:
    """Peak resident memory since :func:`_reset_peak`; off Linux, since the process began."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    except OSError:
        pass
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
