"""Tests and tables of docs/cold_items.md; ``cold_items.py --test`` and ``--report`` make them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy

from gtc_pyg.utils.provenance import versions
from harness import DOCS, Experiment, compare, holm, markdown, mean, pick
from harness.stats import Floats, Rows

PAGE = DOCS / "cold_items.md"
TESTS = Experiment(
    "cold_items_tests",
    "dataset* metric* baseline* gtc baseline_value difference gain low high p p_holm users seeds",
).header
KINDS = ("content", "graph", "freedom", "popularity")
OURS = ("gtc", "gtc forward", "freedom embedder")
METRICS = ("recall@20", "ndcg@20")


def chosen(rows: Rows, dataset: str) -> dict[str, str]:
    """Kind of baseline to its method of the highest mean Recall@20 on split val.

    And what needs no choice: FREEDOM as it comes, and chance.
    """
    val, out = pick(rows, dataset=dataset, split="val"), {}
    methods = [m for m in dict.fromkeys(row["method"] for row in val) if m not in OURS]
    recall = {method: mean(pick(val, method=method), "recall@20") for method in methods}
    for kind in KINDS:
        own = [method for method in methods if method.startswith(kind)]
        if own:
            out[kind] = max(own, key=recall.__getitem__)
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


def tests(rows: Rows, folder: Path) -> list[dict[str, object]]:
    """A row for each dataset, metric and kind of baseline."""
    out: list[dict[str, object]] = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        own = pick(rows, dataset=dataset, split="test")
        seeds = sorted({int(row["seed"]) for row in own})
        if not seeds:
            continue
        gtc = of_users(folder, dataset, seeds, "gtc")
        for method in dict.fromkeys(chosen(rows, dataset).values()):
            baseline = of_users(folder, dataset, seeds, method)
            for index, metric in enumerate(METRICS):
                found = compare(gtc[index], baseline[index])
                row: dict[str, object] = {k: f"{found[k]:.6g}" for k in TESTS if k in found}
                row |= {"dataset": dataset, "metric": metric, "baseline": method}
                row |= {"users": gtc.shape[1], "seeds": " ".join(map(str, seeds))}
                row |= {"commit": " ".join(sorted({r["commit"] for r in own}))}
                out.append(row | {"versions": f"{versions()}; scipy {scipy.__version__}"})
    corrected = holm([float(str(row["p"])) for row in out])
    return [row | {"p_holm": f"{p:.3g}"} for row, p in zip(out, corrected, strict=True)]


def result_table(rows: Rows, compared: Rows) -> str:
    """Means over seeds on split test, with Holm's p of the difference from GTC."""
    head = ["", "what ranks", "Recall@20", "NDCG@20", "GTC is above by", "p (Holm)"]
    body = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for method in dict.fromkeys([*OURS, *chosen(rows, dataset).values()]):
            own = pick(rows, dataset=dataset, method=method, split="test")
            found = pick(compared, dataset=dataset, baseline=method, metric="recall@20")
            test = [f"{float(found[0]['gain']):+.1%}", found[0]["p_holm"]] if found else ["", ""]
            if own:
                body.append([dataset, method, *(f"{mean(own, m):.4f}" for m in METRICS), *test])
    return markdown(head, body)


def case_table(rows: Rows) -> str:
    """How many items, users and interactions each set has to find."""
    body = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for split in ("val", "test"):
            own = pick(rows, dataset=dataset, split=split, method="gtc")
            if own:
                means = [f"{mean(own, name):,.0f}" for name in ("items", "users", "labels")]
                body.append([dataset, split, " ".join(r["seed"] for r in own), *means])
    return markdown(["", "split", "seeds", "items", "users", "interactions"], body)


def texts(rows: Rows, compared: Rows) -> dict[str, str]:
    return {"cases": case_table(rows), "results": result_table(rows, compared)}
