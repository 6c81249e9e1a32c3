"""The search of settings: 20 seeded trials for each model and set, judged on validation alone."""

import random
import statistics
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment import Settings
from harness import Experiment, Options
from harness.data import DATASETS, load, measured, outcome
from harness.settings import changed, example_settings, to_json
from search_space import SPACES, in_parts

SEARCH = Experiment(
    "search",
    "dataset* model* trial* seed settings val_recall@20 val_ndcg@20 val_ndcg@5 best_epoch epochs "
    "state seconds curve",
)
TRIALS, SEED, WARM_UP, STARTUP = 20, 0, 10, 4


def draw(model: str, dataset: str, trial: int, base: Settings) -> Settings:
    """The settings of a trial, whatever was drawn before: ``base`` itself for trial 0."""
    return changed(base, in_parts(drawn(model, dataset, trial)) if trial else {})


def drawn(model: str, dataset: str, trial: int) -> dict[str, Any]:
    """What a trial draws of the model's space."""
    return {
        name: random.Random(f"{model}/{dataset}/{trial}/{name}").choice(values)
        for name, values in SPACES[model].items()
    }


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
    pruner = Pruner(finished)
    result = measured(model, dataset, settings, SEED, callbacks=[pruner])
    return outcome(result, SEARCH.header) | {
        "seed": SEED,
        "state": "pruned" if pruner.pruned else "finished",
        "curve": " ".join(f"{value:g}" for value in pruner.curve),
    }


def curves_of(rows: Sequence[Mapping[str, str]], dataset: str, model: str) -> list[list[float]]:
    """The curves of a model's finished trials on a set."""
    wanted = (dataset, model, "finished")
    found = [row for row in rows if (row["dataset"], row["model"], row["state"]) == wanted]
    return [[float(value) for value in row["curve"].split()] for row in found]


def search(args: Namespace) -> None:
    """All trials that have no row yet, trial by trial, the models in turns."""
    settings = example_settings(args.dataset)
    models = args.models or [model for model in SPACES if model in settings]
    missing = [model for model in models if model not in settings]
    if missing:
        raise ValueError(f"examples/{args.dataset}.py has no settings of {missing}")
    dataset = load(args.dataset, args.root)

    def settings_of(model: str, trial: int) -> Settings:
        return draw(model, args.dataset, trial, settings[model])

    def measure(cell: Mapping[str, Any]) -> dict[str, object]:
        def finished() -> list[list[float]]:
            return curves_of(SEARCH.rows(args.out), args.dataset, cell["model"])

        return run_trial(
            dataset, cell["model"], settings_of(cell["model"], cell["trial"]), finished
        )

    grid = [
        {"dataset": args.dataset, "model": m, "trial": t, "settings": to_json(settings_of(m, t))}
        for t in range(args.trials)
        for m in models
    ]
    SEARCH.run(grid, measure, args.out, strict=False)


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


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, SEARCH.path, DATASETS)
    parser.add("--models", choices=list(SPACES), nargs="+", help="all")
    parser.add("--trials", TRIALS)
    parser.start(argv, search, lambda args: print(report(SEARCH.rows(args.out))))


if __name__ == "__main__":
    main()
