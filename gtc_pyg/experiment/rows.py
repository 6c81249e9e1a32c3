from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.datasets.writing import locked, replacing, told
from gtc_pyg.evaluation import KS, METRICS
from gtc_pyg.lightning import FitResult
from gtc_pyg.models.registry import MODELS, arguments_of
from gtc_pyg.utils.provenance import commit, versions

if TYPE_CHECKING:
    from gtc_pyg.experiment.settings import Settings

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
RUN = HEADER[:4]


def append_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    r"""Appends result rows to a CSV file, which is written beside and renamed.

    Several processes may do so at the same time: each waits for the others' end.

    Raises:
        ValueError: Where the file has another header.
        OSError: Where it cannot be written; the rows that were there stay.
    """
    with _appending(Path(path)):
        _append(Path(path), rows)


@contextmanager
def _appending(path: Path) -> Iterator[None]:
    r"""Nobody else appends while inside."""
    with told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(os.path.realpath(path)):
            yield


def _append(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    old = ""
    if path.exists():
        with path.open(newline="") as file:
            old = file.read()
    header = old.partition("\n")[0].strip()
    if path.exists() and header != ",".join(HEADER):
        raise ValueError(
            f"{path} has the header {header!r}, expected {','.join(HEADER)!r}; "
            f"choose another file with --out"
        )
    with (
        replacing(os.path.realpath(path)) as beside,  # a link stays one
        beside.open("w", newline="") as file,
    ):
        file.write(old if old.endswith("\n") or not old else f"{old}\n")
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        if not old:
            writer.writeheader()
        writer.writerows(rows)


def _kept(path: Path, shared: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows of one run that a file has; none where there is no file yet.

    Raises:
        ValueError: Where they were made of other content.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if all(r.get(k) == str(shared[k]) for k in RUN)]
    if any(row.get("features") != shared["features"] for row in rows):
        raise _other(path, shared)
    return rows


def _other(path: Path, shared: Mapping[str, Any]) -> ValueError:
    run = ", ".join(f"{name} {shared[name]}" for name in RUN)
    return ValueError(
        f"{path} has rows of {run}, with other values or content: remove those rows, or choose "
        f"another --preset"
    )


def _append_once(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Appends the rows of one run, where the file does not have them.

    Raises:
        ValueError: Where it has others of that run; times, memory, commit and versions may differ.
    """
    names = HEADER[: HEADER.index("seconds_per_epoch")]
    with _appending(path):
        kept = {tuple(row[name] for name in names) for row in _kept(path, rows[0])}
        if not kept:
            _append(path, rows)
        elif kept != {tuple(str(row[name]) for name in names) for row in rows}:
            raise _other(path, rows[0])


def _test_metrics(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """What a run's rows say of the test split, as ``FitResult.test`` does."""
    names = {metric.lower(): metric for metric in METRICS}
    test = [row for row in rows if row["split"] == "test"]
    return {f"{names[row['metric']]}@{row['k']}": float(row["value"]) for row in test}


def _rows(shared: Mapping[str, Any], result: FitResult, peak: float) -> list[dict[str, Any]]:
    cost = {
        "best_epoch": result.best_epoch,
        "seconds_per_epoch": f"{result.seconds_per_epoch:.3f}",
        "peak_mib": f"{peak:.0f}",
        "commit": commit(),
        "versions": versions(),
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
    if "in_channels" not in arguments_of(MODELS[model]):
        return "none"
    names = settings.modalities or dataset.modalities
    derived = [name for name in names if name in dataset.graph_derived]
    made = getattr(dataset, "encoders", {})
    label = "+".join(f"{name} ({made[name]})" if name in made else name for name in names)
    return label if not derived else f"{label} (graph-derived features: {'+'.join(derived)})"
