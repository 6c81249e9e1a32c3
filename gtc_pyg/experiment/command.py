from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.distributed import rank
from gtc_pyg.evaluation import KS, METRICS
from gtc_pyg.experiment.config import read_settings
from gtc_pyg.experiment.rows import (
    _append_once,
    _features,
    _kept,
    _rows,
    _test_metrics,
    append_rows,
)
from gtc_pyg.experiment.settings import MODELS, NAMES, Settings, train
from gtc_pyg.lightning import FitResult
from gtc_pyg.utils.provenance import peak_mib


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
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE.yaml",
        help="settings of models, which go before the script's; name them by --preset in the rows",
    )
    parser.add_argument("--preset", default="default", help="name of the settings in the rows")
    parser.add_argument("--logs", type=Path, default=Path("outputs"), help="checkpoints and logs")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="DIR",
        help="write the trained recommender to this folder (of several runs DIR/MODEL-SEED), for "
        "gtc_pyg.recommend.Recommender.load",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the same command after it was killed: what has ended is read from --logs "
        "(or, where that is gone, from the rows of --out), the run that was killed goes on from "
        "its last checkpoint, and no row is appended twice",
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

    Rows are appended after each run, so an interrupted command keeps what it finished. With
    ``--resume`` it goes on (``resume`` of :func:`~gtc_pyg.lightning.fit`): a run whose rows are in
    ``--out``, by dataset, model, preset and seed and whatever their commit, adds none; where its
    checkpoints are gone it is not repeated, unless ``--save`` asks for its model. Of several
    processes (``torchrun``) the first one alone prints and writes.

    Args:
        name: Name of the dataset in the rows.
        dataset: Interactions with content and an item graph.
        settings: For each model.
        args: As :func:`parse_args` gives them.

    Returns:
        The runs of each model, one for each seed; without those that are known by their rows alone.

    Raises:
        ValueError: For a model that has no settings; for a file of ``--config`` as
            :func:`read_settings` says, or rows of it that would be named ``default``; with
            ``--resume`` for a run of other settings in ``--logs`` or rows of other values in
            ``--out``.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.config:
        if args.out and args.preset == "default":
            raise ValueError(
                f"'--preset' must name the settings of {args.config} in the rows of {args.out} "
                f"(got 'default', which are the script's): --preset tried"
            )
        settings = read_settings(args.config, settings)
    chosen_models = list(args.models or settings)
    if args.save:  # an extra of its own; missing, or with no place to save to, it says so now
        from gtc_pyg.recommend import Recommender, check_place

        if (args.logs / name).resolve().is_relative_to(args.save.resolve()):
            raise ValueError(
                f"--save {args.save} holds the logs, {args.logs / name}: choose another"
            )
        runs = [(model_name, seed) for model_name in chosen_models for seed in args.seed]
        places = {run: args.save / f"{run[0]}-{run[1]}" for run in runs}
        if len(runs) == 1:
            places = {runs[0]: args.save}
        for place in places.values():
            check_place(place)
    results: dict[str, list[FitResult]] = {}
    table: dict[str, list[Mapping[str, float]]] = {}
    for model_name in chosen_models:
        if model_name not in settings:
            raise ValueError(f"no settings for {model_name!r}: there are {', '.join(settings)}")
        chosen = settings[model_name]
        for seed in args.seed:
            run_name = f"{model_name}-{seed}"
            shared = {
                "dataset": name,
                "model": model_name,
                "preset": args.preset,
                "seed": seed,
                "features": _features(dataset, chosen, model_name),
            }
            title = f"{NAMES[model_name]} on {name}, seed {seed}"
            if args.resume and args.out and not args.save:
                kept = _kept(args.out, shared)
                if kept and not (args.logs / name / "checkpoints" / run_name).exists():
                    _say(f"{title}: rows of commit {kept[0]['commit']} kept, not run again")
                    table.setdefault(NAMES[model_name], []).append(_test_metrics(kept))
                    continue
            _say(title)
            more = {"epochs": args.epochs} if args.epochs else {}
            result = train(
                model_name,
                dataset,
                chosen,
                seed,
                out=args.logs / name,
                name=run_name,
                resume=args.resume,
                progress=not args.quiet,
                **more,
            )
            results.setdefault(model_name, []).append(result)
            table.setdefault(NAMES[model_name], []).append(result.test)
            if args.out and rank() == 0:
                append = _append_once if args.resume else append_rows
                append(args.out, _rows(shared, result, peak_mib()))
            if args.save and rank() == 0:
                saved = Recommender(result.model, dataset, chosen.modalities).save(
                    places[model_name, seed]
                )
                print(f"saved to {saved}", file=sys.stderr)
    if rank() == 0:
        print(f"\n{name}, test" + (f", mean of seeds {args.seed}" if len(args.seed) > 1 else ""))
        print(format_table(table))
    return results


def _say(text: str) -> None:
    if rank() == 0:
        print(text, file=sys.stderr)


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
