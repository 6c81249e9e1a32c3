"""Users ranked per second and memory, beside the bare matrix product and top-k."""

import importlib.metadata
import importlib.util
import statistics
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.evaluation import Ranker, evaluate, ranking_metrics
from gtc_pyg.functional import SCORE_BYTES
from gtc_pyg.functional.topk import _chunk_size
from gtc_pyg.utils.provenance import peak_mib, reset_peak, versions
from harness import DOCS, Experiment, Options, fill, markdown
from harness.stats import Rows
from harness.workers import in_fresh_process, seconds

RANKING = Experiment(
    "ranking",
    "items* users* dim* k* threads* seed* product_s topk_s ours_s metrics_s faiss_s users_per_s "
    "ratio metrics_share added_mib repeats",
)
PAGE = DOCS / "ranking.md"


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
    times = seconds(lambda: index.search(user_emb, k, exclude_links=seen), repeats, 1)
    return f"{statistics.median(times):.5f}"


def added_mib(user_emb: Tensor, item_emb: Tensor, labels: Tensor, seen: Tensor, k: int) -> float:
    """Peak of a whole evaluation above what the process held before it."""
    few = [edges[:, edges[0] < 8] for edges in (labels, seen)]
    evaluate(user_emb[:8], item_emb, few[0], few[1:], ks=[k])  # loads the libraries
    reset_peak()
    before = peak_mib()
    evaluate(user_emb, item_emb, labels, [seen], ks=sorted({k // 4, k // 2, k} - {0}))
    return peak_mib() - before


@torch.no_grad()
def measure(
    items: int, users: int, dim: int, k: int, threads: int, seed: int, repeats: int
) -> dict[str, Any]:
    """One row."""
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
    row = {name: f"{value:.5f}" for name, value in medians.items()}
    row["faiss_s"] = faiss_seconds(user_emb, item_emb, k, seen, repeats)
    found = versions()
    if row["faiss_s"] != "not installed":
        found += f"; faiss-cpu {importlib.metadata.version('faiss-cpu')}"
    return row | {
        "users_per_s": f"{users / medians['ours_s']:.0f}",
        "ratio": f"{statistics.median(o / (p + t) for p, t, o, _ in rounds):.3f}",
        "metrics_share": f"{statistics.median(m / o for _, _, o, m in rounds):.4f}",
        "added_mib": f"{mib:.1f}",
        "repeats": repeats,
        "versions": found,
    }


def run(args: Namespace) -> None:
    shared = {name: getattr(args, name) for name in RANKING.key[2:]}
    grid = [
        {"items": n, "users": args.users or min(8192, max(256, 2**28 // n)), **shared}
        for n in args.items
    ]
    more = {"repeats": args.repeats}
    RANKING.run(grid, lambda cell: in_fresh_process("ranking", "measure", **cell, **more), args.out)


def _size(row: dict[str, str]) -> tuple[int, int]:
    return int(row["items"]), int(row["threads"])


def _milliseconds(seconds: str, users: str) -> str:
    try:
        return f"{float(seconds) / int(users) * 1e6:,.1f}"
    except ValueError:
        return seconds


def table(rows: Rows) -> str:
    """The table of the page; times are per thousand users."""
    head = ["items", "threads", "users / s", "ranking, ms", "product, ms", "top-k, ms", "ratio"]
    head += ["metrics on top", "memory added, MiB", "faiss, ms"]
    body = []
    for row in sorted(rows, key=_size):
        *times, faiss = (
            _milliseconds(row[f"{name}_s"], row["users"])
            for name in ("ours", "product", "topk", "faiss")
        )
        cells = [f"{int(row['items']):,}", row["threads"], f"{int(row['users_per_s']):,}", *times]
        cells += [f"{float(row['ratio']):.2f}", f"{float(row['metrics_share']):.1%}"]
        body.append([*cells, f"{float(row['added_mib']):.0f}", faiss])
    return markdown(head, body)


def conditions(rows: Rows) -> str:
    """What the table was measured with."""
    text = {k: " or ".join(sorted({row[k] for row in rows})) for k in ("dim", "k", "repeats")}
    users = ", ".join(f"{int(row['users']):,}" for row in sorted(rows, key=_size))
    return (
        f"{text['dim']} channels, lists of {text['k']}, medians of {text['repeats']} rounds, "
        f"{users} users; milliseconds are per thousand users."
    )


def texts(rows: Rows) -> dict[str, str]:
    return {"ranking": f"{conditions(rows)}\n\n{table(rows)}"}


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, RANKING.path, threads=2)
    parser.add("--items", [10**4, 10**5, 10**6])
    parser.add("--users", type=int, help="about 2^28 scores, at least 256 users, at most 8192")
    parser.add("--dim", 64, help="channels")
    parser.add("--k", 20, help="length of the lists")
    parser.add("--repeats", 7, help="rounds")
    parser.add("--seed", 0)
    parser.start(argv, run, lambda args: fill(PAGE, texts(RANKING.rows())))


if __name__ == "__main__":
    main()
