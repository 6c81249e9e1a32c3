"""Users ranked per second and memory, beside the bare matrix product and top-k.

    python benchmarks/ranking.py                     # 10^4, 10^5 and 10^6 items, two threads
    python benchmarks/ranking.py --items 10000 --users 512 --repeats 3 --out rows.csv
    python benchmarks/ranking.py --report            # fills the table of docs/ranking.md

Each number of items has a process of its own. Embeddings are drawn from a normal distribution;
interactions are as many as on TikTok: a user has seen 1 to 3 items, one user in 80 has seen 100 to
603, 6.4 on average, and each holds out one. In each round all but faiss take turns; faiss has
threads of its own and comes last. Medians over rounds are reported:

    product, topk   torch.mm into one buffer and torch.topk of it, over the chunks that Ranker uses;
                    nothing is excluded and nothing merged
    ours            Ranker.rank: seen items excluded, one list per user
    metrics         what Ranker.update and compute take besides
    faiss           PyG's MIPSKNNIndex, seen items in exclude_links; where faiss is installed

A ratio is the median of the rounds' own ratios. Memory is the peak that one evaluation adds to
what the process held before. Rows are appended to the file of results; what is there already is
not run again.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.evaluation import Ranker, evaluate, ranking_metrics
from gtc_pyg.experiment import _commit, _peak_mib, _reset_peak, _versions
from gtc_pyg.functional import SCORE_BYTES
from gtc_pyg.functional.topk import _chunk_size

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, markdown, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "ranking.csv"
PAGE = ROOT / "docs" / "ranking.md"
KEYS = ["items", "users", "dim", "k", "threads", "seed"]


class TimedRanker(Ranker):
    """Counts the seconds of :meth:`rank`, so that what else an update takes is known."""

    seconds = 0.0

    def rank(self, user_emb: Tensor, item_emb: Tensor, users: Tensor, k: int) -> Tensor:
        start = time.perf_counter()
        out = super().rank(user_emb, item_emb, users, k)
        self.seconds += time.perf_counter() - start
        return out


def draw(items: int, users: int, dim: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings of users and items, held-out and seen interactions; no pair is in both."""
    generator = torch.Generator().manual_seed(seed)
    user_emb = torch.randn(users, dim, generator=generator)
    item_emb = torch.randn(items, dim, generator=generator)
    seen = torch.randint(1, 4, (users,), generator=generator)
    many = torch.randint(100, 604, (users,), generator=generator).clamp(max=items // 2)
    seen = many.where(torch.rand(users, generator=generator) < 1 / 80, seen)
    user = torch.arange(users).repeat_interleave(1 + seen)
    place = torch.arange(user.numel()) - ((1 + seen).cumsum(0) - 1 - seen)[user]
    # Steps of one size from a random start never meet before the catalogue is through.
    start = torch.randint(items, (users,), generator=generator)
    edges = torch.stack([user, (start[user] + place * 7919) % items])
    return user_emb, item_emb, edges[:, place == 0], edges[:, place > 0]


def product_and_topk(user_emb: Tensor, item_emb: Tensor, k: int) -> tuple[float, float]:
    """Seconds of the two, over the same chunks as in :func:`inner_product_topk`."""
    sizes = user_emb.size(0), item_emb.size(0)
    rows, cols = _chunk_size(*sizes, SCORE_BYTES // user_emb.element_size())
    buffer = torch.empty(rows * cols)
    product = topk = 0.0
    for x in user_emb.split(rows):
        for y in item_emb.split(cols):
            score = buffer[: x.size(0) * y.size(0)].view(x.size(0), y.size(0))
            start = time.perf_counter()
            torch.mm(x, y.t(), out=score)
            middle = time.perf_counter()
            score.topk(min(k, y.size(0)), dim=1)
            product, topk = product + middle - start, topk + time.perf_counter() - middle
    return product, topk


def rank_and_count(
    ranker: TimedRanker, user_emb: Tensor, item_emb: Tensor, ks: Sequence[int]
) -> tuple[float, float]:
    """Seconds of ranking and of all else in an evaluation, in the batches of :func:`evaluate`."""
    ranker.seconds = 0.0
    start = time.perf_counter()
    metrics = ranking_metrics(ks)
    for users in ranker.users.split(8192):
        ranker.update(metrics, user_emb, item_emb, users)
    metrics.compute()
    return ranker.seconds, time.perf_counter() - start - ranker.seconds


def faiss_seconds(user_emb: Tensor, item_emb: Tensor, k: int, seen: Tensor, repeats: int) -> str:
    """Median of a search; the index is made before."""
    if importlib.util.find_spec("faiss") is None:
        return "not installed"
    import faiss
    from torch_geometric.nn import MIPSKNNIndex

    faiss.omp_set_num_threads(torch.get_num_threads())
    index = MIPSKNNIndex(item_emb)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        index.search(user_emb, k, exclude_links=seen)
        times.append(time.perf_counter() - start)
    return f"{statistics.median(times[1:]):.5f}"


def added_mib(user_emb: Tensor, item_emb: Tensor, labels: Tensor, seen: Tensor, k: int) -> float:
    """Peak of a whole evaluation above what the process held before it."""
    few = [edges[:, edges[0] < 8] for edges in (labels, seen)]
    evaluate(user_emb[:8], item_emb, few[0], few[1:], ks=[k])  # loads the libraries
    _reset_peak()
    before = _peak_mib()
    evaluate(user_emb, item_emb, labels, [seen], ks=sorted({k // 4, k // 2, k} - {0}))
    return _peak_mib() - before


@torch.no_grad()
def measure(
    items: int, users: int, dim: int, k: int, threads: int, seed: int, repeats: int
) -> dict[str, Any]:
    """One row, without its source."""
    torch.set_num_threads(threads)
    user_emb, item_emb, labels, seen = draw(items, users, dim, seed)
    mib = added_mib(user_emb, item_emb, labels, seen, k)
    ranker = TimedRanker(labels, [seen], users)
    ks = sorted({k // 4, k // 2, k} - {0})
    rounds = []
    for _ in range(repeats + 1):  # the first one warms up
        floor = product_and_topk(user_emb, item_emb, k)
        rounds.append((*floor, *rank_and_count(ranker, user_emb, item_emb, ks)))
    del rounds[0]
    names = ["product_s", "topk_s", "ours_s", "metrics_s"]
    medians = dict(zip(names, map(statistics.median, zip(*rounds, strict=True)), strict=True))
    row = {name: f"{seconds:.5f}" for name, seconds in medians.items()}
    row["faiss_s"] = faiss_seconds(user_emb, item_emb, k, seen, repeats)
    return row | {
        "users_per_s": f"{users / medians['ours_s']:.0f}",
        "ratio": f"{statistics.median(o / (p + t) for p, t, o, _ in rounds):.3f}",
        "metrics_share": f"{statistics.median(m / o for _, _, o, m in rounds):.4f}",
        "added_mib": f"{mib:.1f}",
        "repeats": repeats,
        "versions": _versions(),
    }


def in_fresh_process(options: dict[str, int]) -> dict[str, Any]:
    """:func:`measure` in a new interpreter."""
    code = (
        "import json, sys\nfrom benchmarks.ranking import measure\n"
        "print(json.dumps(measure(**json.loads(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, json.dumps(options)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(options["threads"])}
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def run(args: argparse.Namespace) -> None:
    """Measures and appends what is still missing."""
    for items in args.items:
        users = args.users or min(8192, max(256, 2**28 // items))
        keys = {name: getattr(args, name) for name in KEYS[2:]}
        keys = {"items": items, "users": users, **keys}
        if any(all(row[name] == str(keys[name]) for name in KEYS) for row in read_rows(args.out)):
            print(f"{items} items: there already in {args.out}")
            continue
        found = in_fresh_process(keys | {"repeats": args.repeats})
        print(*(f"{name}={value}" for name, value in (keys | found).items()), flush=True)
        versions = found.pop("versions")
        if found["faiss_s"] != "not installed":
            versions += f"; faiss-cpu {importlib.metadata.version('faiss-cpu')}"
        row = {**keys, **found, "commit": _commit(), "versions": versions}
        append_rows(args.out, list(row), [row])


def table(rows: list[dict[str, str]]) -> str:
    """The table of the page; times are per thousand users."""
    head = ["items", "threads", "users / s", "ranking, ms", "product, ms", "top-k, ms", "ratio"]
    head += ["metrics on top", "memory added, MiB", "faiss, ms"]
    body = []
    for row in sorted(rows, key=_size):
        names = ["ours_s", "product_s", "topk_s", "faiss_s"]
        ours, product, topk, faiss = (_milliseconds(row[name], row["users"]) for name in names)
        cells = [f"{int(row['items']):,}", row["threads"], f"{int(row['users_per_s']):,}"]
        cells += [
            ours,
            product,
            topk,
            f"{float(row['ratio']):.2f}",
            f"{float(row['metrics_share']):.1%}",
        ]
        body.append([*cells, f"{float(row['added_mib']):.0f}", faiss])
    return markdown(head, body)


def _milliseconds(seconds: str, users: str) -> str:
    try:
        return f"{float(seconds) / int(users) * 1e6:,.1f}"
    except ValueError:
        return seconds


def conditions(rows: list[dict[str, str]]) -> str:
    """What the table was measured with."""
    shared = {name: {row[name] for row in rows} for name in ("dim", "k", "repeats")}
    text = {name: " or ".join(sorted(values)) for name, values in shared.items()}
    users = ", ".join(f"{int(row['users']):,}" for row in sorted(rows, key=_size))
    return (
        f"{text['dim']} channels, lists of {text['k']}, medians of {text['repeats']} rounds, "
        f"{users} users; milliseconds are per thousand users."
    )


def _size(row: dict[str, str]) -> tuple[int, int]:
    return int(row["items"]), int(row["threads"])


def with_table(page: str, rows: list[dict[str, str]]) -> str:
    """The text of the page with the table between its two marks."""
    return between(page, "ranking", f"{conditions(rows)}\n\n{table(rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10**4, 10**5, 10**6])
    parser.add_argument(
        "--users", type=int, help="default: about 2^28 scores, at least 256 users, at most 8192"
    )
    parser.add_argument("--dim", type=int, default=64, help="channels (default: 64)")
    parser.add_argument("--k", type=int, default=20, help="length of the lists (default: 20)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds (default: 7)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROWS, help="default: the committed rows")
    parser.add_argument("--report", action="store_true", help="fill the table of the page, no runs")
    args = parser.parse_args()
    if not args.report:
        run(args)
        return
    write_text(PAGE, with_table(PAGE.read_text(), read_rows(ROWS)))


if __name__ == "__main__":
    main()
