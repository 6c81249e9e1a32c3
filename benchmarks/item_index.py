"""ItemIndex: what the approximate kind misses and what it saves, beside the exact kind."""

import importlib.metadata
import statistics
import time
from argparse import Namespace
from collections.abc import Callable

import torch
from torch import Tensor

from gtc_pyg.functional import inner_product_topk
from gtc_pyg.recommend.index import ItemIndex
from harness import DOCS, Experiment, Options, fill, markdown, source
from harness.stats import Rows
from harness.workers import seconds

INDEX = Experiment(
    "item_index",
    "items* dim* clusters* k* threads* seed* tastes users cells probes candidates overlap exact_ms "
    "approximate_ms ours_ms ratio ratio_ours build_s repeats",
)
PAGE = DOCS / "item_index.md"
NOISE, POPULARITY = 0.5, 0.3
TARGET = {"overlap": 0.95, "ratio": 5.0}


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


def measure(args: Namespace, items: int) -> list[dict[str, object]]:
    """The rows of one number of items."""
    item_emb = plant(items, 0, args.dim, args.clusters, 1, args.seed)[1]
    exact = ItemIndex(item_emb)
    start = time.perf_counter()
    index = ItemIndex(item_emb, approximate=True)
    build = time.perf_counter() - start
    default, rows = index.num_probes, []
    shared = {"cells": round(items**0.5), "candidates": index.num_candidates}
    shared |= {"build_s": f"{build:.1f}", "repeats": args.repeats}
    shared["versions"] = (
        f"{source()['versions']}; faiss-cpu {importlib.metadata.version('faiss-cpu')}"
    )

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
                **{n: lambda x=x, n=n: search(x, n) for n in all_probes},
            }
            rounds = [{k: seconds(c)[0] for k, c in calls.items()} for _ in range(args.repeats)]
            times = {name: [turn[name] for turn in rounds] for name in calls}
            ms = {name: f"{statistics.median(t) / users * 1e3:.4f}" for name, t in times.items()}
            for n in all_probes:
                row = {
                    "tastes": tastes,
                    "users": users,
                    "probes": n,
                    "overlap": f"{overlap[n]:.4f}",
                }
                row |= {"exact_ms": ms["exact"], "approximate_ms": ms[n], "ours_ms": ms["ours"]}
                row["ratio"] = f"{median_ratio(times['exact'], times[n]):.2f}"
                row["ratio_ours"] = f"{median_ratio(times['ours'], times[n]):.2f}"
                rows.append(row | shared)
    return rows


def median_ratio(times: list[float], to: list[float]) -> float:
    """Median of the rounds' own ratios."""
    return statistics.median(a / b for a, b in zip(times, to, strict=True))


def run(args: Namespace) -> None:
    import faiss

    faiss.omp_set_num_threads(args.threads)
    shared = {name: getattr(args, name) for name in INDEX.key[1:]}
    grid = [{"items": items, **shared} for items in args.items]
    INDEX.run(grid, lambda cell: measure(args, cell["items"]), args.out)


def groups(rows: Rows) -> dict[tuple[int, int, int], Rows]:
    """Rows by items, tastes and users in a call, those of few probes first."""
    found: dict[tuple[int, int, int], list] = {}
    for row in sorted(rows, key=lambda row: int(row["probes"])):
        key = int(row["items"]), int(row["tastes"]), int(row["users"])
        found.setdefault(key, []).append(row)
    return dict(sorted(found.items()))


def best_of(rows: Rows) -> dict[str, str] | None:
    """The row of the highest ratio among those that overlap enough."""
    enough = [row for row in rows if float(row["overlap"]) >= TARGET["overlap"]]
    return max(enough, key=lambda row: float(row["ratio"]), default=None)


def summary(rows: Rows) -> str:
    """For each group the quickest setting that overlaps enough, and whether it is quick enough."""
    head = ["items", "tastes", "users in a call", "probes", "overlap", "times the exact speed"]
    body = []
    for (items, tastes, users), group in groups(rows).items():
        row, cells = best_of(group), ["none", f"below {TARGET['overlap']:.2f}", "", "no"]
        if row:
            reached = "yes" if float(row["ratio"]) >= TARGET["ratio"] else "no"
            cells = [row["probes"], row["overlap"], f"{float(row['ratio']):.1f}", reached]
        body.append([f"{items:,}", str(tastes), f"{users:,}", *cells])
    return markdown([*head, "5 times"], body)


def table(rows: Rows) -> str:
    """All rows; times are per user."""
    head = ["items", "tastes", "users in a call", "probes", "overlap", "exact, ms"]
    head += ["approximate, ms", "inner_product_topk, ms", "ratio"]
    body = []
    for (items, tastes, users), group in groups(rows).items():
        for row in group:
            times = [f"{float(row[f'{name}_ms']):.2f}" for name in ("exact", "approximate", "ours")]
            cells = [f"{items:,}", tastes, f"{users:,}", row["probes"], row["overlap"]]
            body.append([*cells, *times, f"{float(row['ratio']):.1f}"])
    return markdown(head, body)


def conditions(rows: Rows) -> str:
    """What the tables were measured with."""
    names = ("dim", "clusters", "k", "candidates", "threads", "repeats")
    text = {name: " or ".join(sorted({row[name] for row in rows}, key=int)) for name in names}
    build = {int(row["items"]): float(row["build_s"]) for row in rows}
    took = ", ".join(f"{s:.0f} s for {items:,} items" for items, s in sorted(build.items()))
    return (
        f"{text['dim']} channels, {text['clusters']} clusters, lists of {text['k']}, "
        f"{text['candidates']} candidates, threads: {text['threads']}, medians of "
        f"{text['repeats']} rounds. Times are per user. Building the approximate index took {took}."
    )


def texts(rows: Rows) -> dict[str, str]:
    return {"target": summary(rows), "item index": f"{conditions(rows)}\n\n{table(rows)}"}


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, INDEX.path)
    parser.add("--items", [10**5, 10**6])
    parser.add("--clusters", 1000)
    parser.add("--tastes", [1, 3], help="centres of a user")
    parser.add("--users", [256, 2048], help="in a call")
    parser.add("--probes", [8, 16, 32, 64], help="besides the index's own")
    parser.add("--dim", 64, help="channels")
    parser.add("--k", 100, help="length of the lists")
    parser.add("--repeats", 3, help="rounds")
    parser.add("--seed", 0)
    parser.start(argv, run, lambda args: fill(PAGE, texts(INDEX.rows(args.out))))


if __name__ == "__main__":
    main()
