"""The chosen settings with five seeds, and whether GTC's gain is more than luck."""

import json
import sys
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy

from gtc_pyg import experiment
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment import Settings
from gtc_pyg.utils.provenance import versions
from harness import (
    RESULTS,
    ROOT,
    Experiment,
    Options,
    compare,
    holm,
    pick,
    read_rows,
    replaced,
    shown,
    write_rows,
)
from harness.data import DATASETS
from harness.data import load as load_data
from harness.per_user import METRICS, per_user
from harness.rows import claimed, lock_of
from harness.settings import example_settings, to_json

ROWS, TABLE = RESULTS / "accuracy.csv", RESULTS / "significance.csv"
USERS = ROOT / "outputs" / "users"
HEADER = Experiment(
    "significance",
    "dataset* baseline* metric* k* gtc baseline_value difference gain low high p p_holm detectable "
    "users seeds",
).header
PRESET = "default"
Run = dict[str, Any]
Runs = Mapping[str, Mapping[str, Mapping[int, Run]]]


def train(name: str, dataset: InteractionDataset, model: str, settings: Settings, seed: int) -> Run:
    """One run: its result rows and the test metrics of each user, which have to agree."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.csv"
        options = f"--models {model} --seed {seed} --preset {PRESET} --quiet".split()
        options += ["--out", str(rows), "--logs", folder]
        args = experiment.parse_args(None, argv=options)
        result = experiment.run(name, dataset, {model: settings}, args)[model][0]
        kept = read_rows(rows)
    found = per_user(result.model, dataset, settings.modalities)
    for key, value in found.metrics.items():
        reported = result.test[key.replace("ndcg", "NDCG").replace("recall", "Recall")]
        if abs(value.mean() - reported) > 1e-6:
            raise RuntimeError(f"{key} of the users is {value.mean()} and {reported} in the report")
    arrays = {**found.metrics, **{name: getattr(found, name) for name in found._fields[1:]}}
    return {"settings": to_json(settings), "rows": json.dumps(kept), **arrays}


def save(path: Path, run: Run) -> None:
    """Keeps a run."""
    with replaced(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **run)


def load(path: Path) -> Run:
    """A run that was kept."""
    with np.load(path) as file:
        return {key: str(file[key]) if file[key].ndim == 0 else file[key] for key in file}


def report_once(path: Path, run: Run) -> None:
    """Appends the rows of a run to the result rows, where they are not there yet.

    Raises:
        ValueError: Where the file has other values of the same run.
    """
    rows = json.loads(run["rows"])
    run_key, value_key = experiment.HEADER[:4], experiment.HEADER[:7]
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path.parent):
        old = pick(read_rows(path), **{k: rows[0][k] for k in run_key})
        if not old:
            experiment.append_rows(path, rows)
            return
    there, here = (
        {tuple(r[k] for k in value_key): float(r["value"]) for r in x} for x in (old, rows)
    )
    if there.keys() != here.keys() or any(abs(there[k] - here[k]) > 2e-6 for k in here):
        which = ", ".join(f"{k} {rows[0][k]}" for k in run_key)
        raise ValueError(f"{path} has other values of {which}: remove those rows and repeat")


def run(args: Namespace) -> None:
    settings, dataset = example_settings(args.dataset), load_data(args.dataset, args.root)
    for seed in args.seed:
        for model in args.models or list(settings):
            path = args.users / f"{args.dataset}-{model}-{seed}.npz"
            with claimed(path) as mine:
                if not mine:
                    continue
                if not path.exists():
                    save(path, train(args.dataset, dataset, model, settings[model], seed))
                kept = load(path)
                if kept["settings"] != to_json(settings[model]):
                    raise ValueError(f"{path} was made with other settings: remove it and repeat")
                report_once(args.out, kept)


def commits_of(runs: Sequence[Run]) -> str:
    """The commits that some runs were made with."""
    return " ".join(sorted({row["commit"] for run in runs for row in json.loads(run["rows"])}))


def read_runs(folder: Path) -> dict[str, dict[str, dict[int, Run]]]:
    """By data set, model and seed.

    Raises:
        ValueError: Where a set lacks GTC, or its models differ in seeds or users, or the runs of
            one model in settings.
    """
    found: dict[str, dict[str, dict[int, Run]]] = {}
    for path in sorted(folder.glob("*-*-*.npz")):
        dataset, model, seed = path.stem.rsplit("-", 2)
        found.setdefault(dataset, {}).setdefault(model, {})[int(seed)] = load(path)
    if not found:
        raise ValueError(f"{folder} has no runs, make them first")
    for dataset, models in found.items():
        if "gtc" not in models or len(models) < 2:
            raise ValueError(f"{dataset} has {list(models)}, expected gtc and baselines")
        seeds = {model: sorted(runs) for model, runs in models.items()}
        if any(own != seeds["gtc"] for own in seeds.values()):
            raise ValueError(f"{dataset}: models differ in seeds: {seeds}")
        users = [run["users"] for runs in models.values() for run in runs.values()]
        if not all(np.array_equal(other, users[0]) for other in users):
            raise ValueError(f"{dataset}: runs differ in users")
        for model, runs in models.items():
            if len({run["settings"] for run in runs.values()}) > 1:
                raise ValueError(f"{dataset}: runs of {model} differ in settings")
    return found


def table(runs: Runs) -> list[dict[str, object]]:
    """A row for each set, baseline and metric, Holm's correction over all of them."""
    rows: list[dict[str, object]] = []
    ps = []
    for dataset, models in runs.items():
        for baseline in (model for model in models if model != "gtc"):
            both = [run for model in ("gtc", baseline) for run in models[model].values()]
            for metric, k in METRICS:
                pair = [
                    np.mean([run[f"{metric}@{k}"] for run in models[model].values()], axis=0)
                    for model in ("gtc", baseline)
                ]
                values = compare(*pair)
                ps.append(values.pop("p"))
                key = {"dataset": dataset, "baseline": baseline, "metric": metric, "k": k}
                rows.append(
                    key
                    | {name: f"{value:.6f}" for name, value in values.items()}
                    | {"users": pair[0].size, "seeds": " ".join(map(str, sorted(models["gtc"])))}
                    | {"commit": commits_of(both)}
                    | {"versions": f"{versions()}; scipy {scipy.__version__}"}
                )
    for row, p, corrected in zip(rows, ps, holm(ps), strict=True):
        row |= {"p": f"{p:.3g}", "p_holm": f"{corrected:.3g}"}
    return rows


def start(args: Namespace) -> None:
    if args.test:
        rows = table(read_runs(args.users))
        write_rows(args.table, HEADER, rows)  # anew: a p-value depends on all rows
        print(*map(shown, rows), sep="\n")
    else:
        run(args)
        print(f"next: significance.py --test --users {args.users}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, ROWS, DATASETS, range(5))
    parser.add("--models", nargs="+", help="all of the example script")
    parser.add("--users", USERS, help="folder of the users' values")
    parser.add("--test", False, help="compare what was trained")
    parser.add("--table", TABLE, help="CSV file of the comparisons")
    parser.start(argv, start)


if __name__ == "__main__":
    main()
