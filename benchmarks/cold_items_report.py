"""Tests and tables of docs/cold_items.md; ``cold_items.py --test`` and ``--report`` make them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy
from numpy.typing import NDArray

from benchmarks.rows import between, markdown
from benchmarks.significance import compare, holm
from gtc_pyg.experiment import _versions

TESTS = ["dataset", "metric", "baseline", "gtc", "baseline_value", "difference", "gain", "low"]
TESTS += ["high", "p", "p_holm", "users", "seeds", "commit", "versions"]
KINDS = {kind: (kind,) for kind in ("content", "graph", "freedom", "popularity")}
OURS = ("gtc", "gtc forward", "freedom embedder")
Floats = NDArray[np.float64]


def chosen(rows: Sequence[Mapping[str, str]], dataset: str) -> dict[str, str]:
    """Kind of baseline to its method of the highest mean Recall@20 on split val.

    And what needs no choice: FREEDOM as it comes, and chance.
    """
    recall: dict[str, list[float]] = {}
    for row in rows:
        if row["dataset"] == dataset and row["split"] == "val" and row["method"] not in OURS:
            recall.setdefault(row["method"], []).append(float(row["recall@20"]))
    out = {}
    for kind, starts in KINDS.items():
        own = {m: float(np.mean(x)) for m, x in recall.items() if m.startswith(starts)}
        if own:
            out[kind] = max(own, key=lambda method: own[method])
    return {"as it comes": "freedom", **out, "chance": "chance"} if out else {}


def of_users(folder: Path, dataset: str, seeds: Sequence[int], method: str) -> Floats:
    """Recall and NDCG of each user, means over the seeds in which they have labels ``[2, U]``."""
    total: dict[int, Floats] = {}
    count: dict[int, int] = {}
    for seed in seeds:
        with np.load(folder / f"{dataset}-test-{seed}.npz") as file:
            for user, pair in zip(file["users_of_row"].tolist(), file[method].T, strict=True):
                total[user] = total.get(user, 0) + pair
                count[user] = count.get(user, 0) + 1
    return np.stack([total[user] / count[user] for user in sorted(total)], axis=1)


def tests(rows: Sequence[Mapping[str, str]], folder: Path) -> list[dict[str, object]]:
    """A row for each dataset, metric and kind of baseline."""
    out: list[dict[str, object]] = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = [r for r in rows if r["dataset"] == dataset and r["split"] == "test"]
        seeds = sorted({int(row["seed"]) for row in own})
        if not seeds:
            continue
        gtc = of_users(folder, dataset, seeds, "gtc")
        for method in dict.fromkeys(chosen(rows, dataset).values()):
            baseline = of_users(folder, dataset, seeds, method)
            for index, metric in enumerate(("recall@20", "ndcg@20")):
                found = compare(gtc[index], baseline[index])
                row: dict[str, object] = {k: f"{found[k]:.6g}" for k in TESTS if k in found}
                row |= {"dataset": dataset, "metric": metric, "baseline": method}
                row |= {"users": gtc.shape[1], "seeds": " ".join(map(str, seeds))}
                row |= {"commit": " ".join(sorted({r["commit"] for r in own}))}
                out.append(row | {"versions": f"{_versions()}; scipy {scipy.__version__}"})
    corrected = holm([float(str(row["p"])) for row in out])
    return [row | {"p_holm": f"{p:.3g}"} for row, p in zip(out, corrected, strict=True)]


def result_table(rows: Sequence[Mapping[str, str]], compared: Sequence[Mapping[str, str]]) -> str:
    """Means over seeds on split test, with Holm's p of the difference from GTC."""
    head = ["", "what ranks", "Recall@20", "NDCG@20", "GTC is above by", "p (Holm)"]
    body = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        best = chosen(rows, dataset)
        for method in dict.fromkeys([*OURS, *best.values()]):
            own = [
                row
                for row in rows
                if (row["dataset"], row["method"], row["split"]) == (dataset, method, "test")
            ]
            if not own:
                continue
            means = [f"{np.mean([float(r[m]) for r in own]):.4f}" for m in ("recall@20", "ndcg@20")]
            found = [
                row
                for row in compared
                if (row["dataset"], row["baseline"], row["metric"])
                == (dataset, method, "recall@20")
            ]
            test = ["", ""]
            if found:
                test = [f"{float(found[0]['gain']):+.1%}", found[0]["p_holm"]]
            body.append([dataset, method, *means, *test])
    return markdown(head, body)


def case_table(rows: Sequence[Mapping[str, str]]) -> str:
    """How many items, users and interactions each set has to find."""
    head = ["", "split", "seeds", "items", "users", "interactions"]
    body = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for split in ("val", "test"):
            own = [
                r
                for r in rows
                if (r["dataset"], r["split"], r["method"]) == (dataset, split, "gtc")
            ]
            if own:
                mean = [
                    f"{np.mean([int(r[k]) for r in own]):,.0f}"
                    for k in ("items", "users", "labels")
                ]
                body.append([dataset, split, " ".join(r["seed"] for r in own), *mean])
    return markdown(head, body)


def with_tables(
    page: str, rows: Sequence[Mapping[str, str]], compared: Sequence[Mapping[str, str]]
) -> str:
    """The page with the tables that the rows make."""
    return between(
        between(page, "cases", case_table(rows)), "results", result_table(rows, compared)
    )
