"""ItemIndex: what the approximate kind misses and what it saves, beside the exact kind.

    python benchmarks/item_index.py                  # 10^5 and 10^6 items, one thread
    python benchmarks/item_index.py --items 100000 --clusters 100 --out rows.csv
    python benchmarks/item_index.py --report         # fills the tables of docs/item_index.md

Items are planted: as many around each of --clusters centres, drawn from a normal distribution of
expected squared length 1, at a distance of half a centre's length, times a log-normal factor of
deviation .3, which stands for popularity. A user is the sum of --tastes centres, scaled back to
the length of one, and the same noise. Overlap is the share of the exact list that the approximate
one contains, averaged over users.

In each round all take turns with the same users, --users of them in one call:

    exact        ItemIndex(item_emb), PyG's MIPSKNNIndex
    approximate  ItemIndex(item_emb, approximate=True), with each of --probes
    ours         gtc_pyg.functional.inner_product_topk, exact

Medians over rounds are reported, and ratios are medians of the rounds' own ratios. Rows are
appended to --out; a number of items that is there already is not run again.
"""

import argparse
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gtc_pyg.experiment import _commit, _versions
from gtc_pyg.functional import inner_product_topk
from gtc_pyg.recommend.index import ItemIndex

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, markdown, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "item_index.csv"
PAGE = ROOT / "docs" / "item_index.md"
NOISE = 0.5
POPULARITY = 0.3
TARGET = {"overlap": 0.95, "ratio": 5.0}
SETTINGS = ["items", "dim", "clusters", "k", "threads", "seed"]
HEADER = [
    *SETTINGS,
    "tastes",
    "users",
    "cells",
    "probes",
    "candidates",
    "overlap",
    "exact_ms",
    "approximate_ms",
    "ours_ms",
    "ratio",
    "ratio_ours",
    "build_s",
    "repeats",
    "commit",
    "versions",
]


def plant(
    items: int, users: int, dim: int, clusters: int, tastes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Embeddings of users and of items; the items do not depend on the users."""
    generator = torch.Generator().manual_seed(seed)
    center = torch.randn(clusters, dim, generator=generator) / dim**0.5
    item = center[torch.arange(items) % clusters]
    item += NOISE / dim**0.5 * torch.randn(items, dim, generator=generator)
    item *= (POPULARITY * torch.randn(items, 1, generator=generator)).exp()
    of_user = torch.randint(clusters, (users, tastes), generator=generator)
    user = center[of_user].sum(1) / tastes**0.5
    return user + NOISE / dim**0.5 * torch.randn(users, dim, generator=generator), item


def mean_overlap(found: Tensor, best: Tensor) -> float:
    """Share of each row of ``best`` that the row of ``found`` contains, averaged."""
    rows = zip(found, best, strict=True)
    return statistics.fmean(float(torch.isin(b, a).float().mean()) for a, b in rows)


def in_turns(calls: dict[object, Callable[[], object]], repeats: int) -> dict[object, list[float]]:
    """Seconds of each call in each round."""
    times: dict[object, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return times


def measure(args: argparse.Namespace, items: int) -> list[dict[str, object]]:
    """The rows of one number of items, without their source."""
    item_emb = plant(items, 0, args.dim, args.clusters, 1, args.seed)[1]
    exact = ItemIndex(item_emb)
    start = time.perf_counter()
    index = ItemIndex(item_emb, approximate=True)
    build = time.perf_counter() - start
    default, rows = index.num_probes, []
    print(f"{items} items: built in {build:.1f} s, default {default} probes", flush=True)

    def search(user_emb: Tensor, probes: int) -> Tensor:
        index.num_probes = probes
        return index.search(user_emb, args.k)[1]

    for tastes in args.tastes:
        for users in args.users:
            x = plant(items, users, args.dim, args.clusters, tastes, args.seed)[0]
            best = exact.search(x, args.k)[1]
            all_probes = sorted({*args.probes, default})
            overlap = {n: mean_overlap(search(x, n), best) for n in all_probes}
            calls: dict[object, Callable[[], object]] = {
                "exact": lambda x=x: exact.search(x, args.k),
                "ours": lambda x=x: inner_product_topk(x, item_emb, args.k),
            }
            for n in all_probes:
                calls[n] = lambda x=x, n=n: search(x, n)
            times = in_turns(calls, args.repeats)
            ms = {name: statistics.median(t) / users * 1e3 for name, t in times.items()}
            for n in all_probes:
                row = {
                    "items": items,
                    **{name: getattr(args, name) for name in SETTINGS[1:]},
                    "tastes": tastes,
                    "users": users,
                    "cells": round(items**0.5),
                    "probes": n,
                    "candidates": index.num_candidates,
                    "overlap": f"{overlap[n]:.4f}",
                    "exact_ms": f"{ms['exact']:.4f}",
                    "approximate_ms": f"{ms[n]:.4f}",
                    "ours_ms": f"{ms['ours']:.4f}",
                    "ratio": f"{median_ratio(times['exact'], times[n]):.2f}",
                    "ratio_ours": f"{median_ratio(times['ours'], times[n]):.2f}",
                    "build_s": f"{build:.1f}",
                    "repeats": args.repeats,
                }
                print(*(f"{key}={row[key]}" for key in HEADER[6:17]), flush=True)
                rows.append(row)
    return rows


def median_ratio(times: list[float], to: list[float]) -> float:
    """Median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def run(args: argparse.Namespace) -> None:
    """Measures and appends what is still missing."""
    for items in args.items:
        keys = {"items": items, **{name: getattr(args, name) for name in SETTINGS[1:]}}
        if any(all(row[name] == str(keys[name]) for name in keys) for row in read_rows(args.out)):
            print(f"{items} items: there already in {args.out}")
            continue
        versions = f"{_versions()}; faiss-cpu {importlib.metadata.version('faiss-cpu')}"
        source = {"commit": _commit(), "versions": versions}
        append_rows(args.out, HEADER, [row | source for row in measure(args, items)])


def groups(rows: list[dict[str, str]]) -> dict[tuple[int, int, int], list[dict[str, str]]]:
    """Rows by items, tastes and users in a call, those of few probes first."""
    found: dict[tuple[int, int, int], list[dict[str, str]]] = {}
    for row in sorted(rows, key=lambda row: int(row["probes"])):
        key = int(row["items"]), int(row["tastes"]), int(row["users"])
        found.setdefault(key, []).append(row)
    return dict(sorted(found.items()))


def best_of(rows: list[dict[str, str]]) -> dict[str, str] | None:
    """The row of the highest ratio among those that overlap enough."""
    enough = [row for row in rows if float(row["overlap"]) >= TARGET["overlap"]]
    return max(enough, key=lambda row: float(row["ratio"]), default=None)


def summary(rows: list[dict[str, str]]) -> str:
    """For each group the quickest setting that overlaps enough, and whether it is quick enough."""
    head = ["items", "tastes", "users in a call", "probes", "overlap", "times the exact speed"]
    head.append("5 times")
    body = []
    for (items, tastes, users), group in groups(rows).items():
        row, cells = best_of(group), [f"{items:,}", str(tastes), f"{users:,}"]
        if row is None:
            body.append([*cells, "none", f"below {TARGET['overlap']:.2f}", "", "no"])
            continue
        reached = "yes" if float(row["ratio"]) >= TARGET["ratio"] else "no"
        body.append([*cells, row["probes"], row["overlap"], f"{float(row['ratio']):.1f}", reached])
    return markdown(head, body)


def table(rows: list[dict[str, str]]) -> str:
    """All rows; times are per user."""
    head = ["items", "tastes", "users in a call", "probes", "overlap", "exact, ms"]
    head += ["approximate, ms", "inner_product_topk, ms", "ratio"]
    body = []
    for (items, tastes, users), group in groups(rows).items():
        for row in group:
            times = [
                f"{float(row[name]):.2f}" for name in ("exact_ms", "approximate_ms", "ours_ms")
            ]
            cells = [f"{items:,}", str(tastes), f"{users:,}", row["probes"], row["overlap"]]
            body.append([*cells, *times, f"{float(row['ratio']):.1f}"])
    return markdown(head, body)


def conditions(rows: list[dict[str, str]]) -> str:
    """What the tables were measured with."""
    names = ("dim", "clusters", "k", "candidates", "threads", "repeats")
    text = {name: " or ".join(sorted({row[name] for row in rows}, key=int)) for name in names}
    build = {int(row["items"]): float(row["build_s"]) for row in rows}
    seconds = ", ".join(f"{s:.0f} s for {items:,} items" for items, s in sorted(build.items()))
    return (
        f"{text['dim']} channels, {text['clusters']} clusters, lists of {text['k']}, "
        f"{text['candidates']} candidates, threads: {text['threads']}, medians of "
        f"{text['repeats']} rounds. Times are per user. Building the approximate index took "
        f"{seconds}."
    )


def with_tables(page: str, rows: list[dict[str, str]]) -> str:
    """The text of the page with the tables between their marks."""
    page = between(page, "target", summary(rows))
    return between(page, "item index", f"{conditions(rows)}\n\n{table(rows)}")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--items", type=int, nargs="+", default=[10**5, 10**6])
    add("--clusters", type=int, default=1000, help="default: 1000")
    add("--tastes", type=int, nargs="+", default=[1, 3], help="centres of a user (default: 1 3)")
    add("--users", type=int, nargs="+", default=[256, 2048], help="in a call (default: 256 2048)")
    add("--probes", type=int, nargs="+", default=[8, 16, 32, 64], help="besides the default's")
    add("--dim", type=int, default=64, help="channels (default: 64)")
    add("--k", type=int, default=100, help="length of the lists (default: 100)")
    add("--threads", type=int, default=1, help="CPU threads (default: 1)")
    add("--repeats", type=int, default=3, help="rounds (default: 3)")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=ROWS, help="CSV file of the rows (default: the committed)")
    add("--report", action="store_true", help="fill the page's tables from --out, no runs")
    return parser.parse_args(argv)


def main() -> None:
    import faiss

    args = parse_args()
    if args.report:
        write_text(PAGE, with_tables(PAGE.read_text(), read_rows(args.out)))
        return
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    run(args)


if __name__ == "__main__":
    main()
