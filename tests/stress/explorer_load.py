"""The explorer under load: right and malformed requests from many clients at the same time.

    python -m tests.stress.explorer_load outputs/saved/lfm2k                       # 10,000 requests
    python -m tests.stress.explorer_load outputs/saved/lfm2k --requests 500 --out rows.csv
    python -m tests.stress.explorer_load --report         # fills the table of docs/explorer.md

DIR is a saved recommender (examples/lfm2k.py --models gtc --save DIR). A server of its own is
started for it. Four requests of five are right, each of a kind drawn at random, and
their answers have to be those that the recommender gives in this process; the others are malformed
and have to be refused with the right status and a reason. The exit status is 0 when every
request had its right answer. Rows (one for each kind, one for all) are appended to --out:

    wrong    answers that were not the expected ones: of another request, say
    lost     no answer at all
    failed   5xx
    p50, p99 milliseconds from the request to the whole answer, at the client
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch

from benchmarks.harness import DOCS, RESULTS, ROOT, append_rows, fill, markdown, read_rows
from gtc_pyg.recommend import Recommender
from gtc_pyg.utils.provenance import commit, versions

ROWS = RESULTS / "explorer_load.csv"
PAGE = DOCS / "explorer.md"
COLUMNS = ["kind", "requests", "wrong", "lost", "failed", "p50_ms", "p99_ms", "max_ms"]
HEADER = ["recommender", "clients", "seed", *COLUMNS, "requests_per_s", "commit", "versions"]


@dataclass(frozen=True)
class Case:
    """A request and its right answer."""

    kind: str
    path: str
    body: bytes | None
    status: int
    right: Callable[[Any], bool]
    length: int | None = None
    """Content-Length of a body that is announced and not sent."""


def refused(path: str, body: bytes | None, status: int, length: int | None = None) -> Case:
    return Case("malformed", path, body, status, lambda x: len(x["detail"]) > 5, length)


def same(entries: list[tuple[Any, float]]) -> Callable[[Any], bool]:
    """Whether an answer has these ids and, to 1e-5, these values."""

    def right(answer: Any) -> bool:
        ids = [str(item) for item, _ in entries] == [str(x["id"]) for x in answer]
        pairs = zip(answer, entries, strict=False)
        return ids and all(abs(x["value"] - value) < 1e-5 for x, (_, value) in pairs)

    return right


def explains(scores: list[tuple[Any, float]]) -> Callable[[Any], bool]:
    """Whether an answer has these items and scores, and parts that add up to them."""

    def right(answer: Any) -> bool:
        sums = [x | {"value": sum(x["sources"].values())} for x in answer]
        return same(scores)(sums) and same(scores)([x | {"value": x["score"]} for x in answer])

    return right


def draw_cases(r: Recommender, rng: random.Random, each: int = 60) -> tuple[list[Case], list[Case]]:
    """Right requests, as many of each kind, and malformed ones."""
    users, items = r.users.index.tolist(), r.items.index.tolist()
    right = []
    for _ in range(each):
        user, item, k = rng.choice(users), rng.choice(items), rng.randint(1, 20)
        some = rng.sample(items, rng.randint(1, min(30, len(items) // 2)))
        row = r.users.rows(user)
        seen = r.items[r.seen[1, r.seen[0] == row]].tolist()
        for kind, who, table in (
            ("list", {"user": user}, r.recommend(user, k)),
            ("fold-in", {"interactions": some}, r.fold_in(some, k)),
        ):
            entries = list(zip(table["item"], table["score"], strict=True))
            body = json.dumps({**who, "k": k}).encode()
            right.append(Case(kind, "/api/recommendations", body, 200, same(entries)))
            body = json.dumps({**who, "items": [i for i, _ in entries[:3]]}, default=int).encode()
            right.append(Case("reasons", "/api/explanations", body, 200, explains(entries[:3])))
        table = r.similar_items(item, k)
        entries = list(zip(table["item"], table["score"], strict=True))
        path = f"/api/similar?item={quote(str(item), safe='')}&k={k}"
        right.append(Case("similar", path, None, 200, same(entries)))
        path = f"/api/history?user={quote(str(user), safe='')}"
        right.append(Case("history", path, None, 200, same_ids(seen)))
        path = f"/api/users?query={quote(str(user), safe='')}&limit=1"
        right.append(Case("search", path, None, 200, lambda x, user=user: x == [user]))
    lists, unknown = "/api/recommendations", "no such id"
    bodies = [b"{", b"", b"[]", b"null", b'{"user": "\xff"}', b"[" * 50_000, b'{"k": 1e999}']
    others = [{"user": True}, {"interactions": []}, {"user": 1.5}, {"user": "\ud800"}]
    others += [{"user": users[0], "k": 0}, {"user": users[0], "items": []}, {"who": 1}]
    others += [{"interactions": items[:1] * 10_001}, {"user": users[0], "k": "5"}]
    bodies += [json.dumps(body).encode() for body in others]
    status = {bodies[4]: 400, bodies[5]: 400}
    bad = [refused(lists, body, status.get(body, 422)) for body in bodies]
    bad += [refused(lists, json.dumps({"user": unknown}).encode(), 404)]
    bad += [refused(lists, json.dumps({"interactions": [items[0], unknown]}).encode(), 404)]
    bad += [refused(lists, b"", 413, length=10**9), refused(lists, None, 405)]
    bad += [refused(f"/api/{x}", None, 422) for x in ("users?limit=0", "similar", "history")]
    bad += [refused(f"/api/{x}", None, 404) for x in ("nothing", "similar?item=%00", "..%2f")]
    return right, bad


def same_ids(ids: list[Any]) -> Callable[[Any], bool]:
    return lambda answer: sorted(map(str, ids)) == sorted(str(x["id"]) for x in answer)


class Client:
    """One connection, kept open."""

    def __init__(self, host: str) -> None:
        self.connection = http.client.HTTPConnection(host, timeout=60)

    def __call__(self, case: Case) -> tuple[str, float, str]:
        """Kind, milliseconds and ``'right'``, ``'wrong'``, ``'failed'`` or ``'lost'``."""
        start = time.perf_counter()
        headers = {} if case.body is None else {"Content-Type": "application/json"}
        if case.length is not None:
            headers["Content-Length"] = str(case.length)
        try:
            method = "GET" if case.body is None else "POST"
            self.connection.request(method, case.path, case.body, headers)
            response = self.connection.getresponse()
            status, text = response.status, response.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            return case.kind, 1e3 * (time.perf_counter() - start), "lost"
        seconds = time.perf_counter() - start
        if case.length is not None:
            self.connection.close()
        if status >= 500:
            return case.kind, 1e3 * seconds, "failed"
        right = status == case.status and case.right(json.loads(text))
        return case.kind, 1e3 * seconds, "right" if right else "wrong"


def load(folder: Path, requests: int, clients: int, seed: int) -> list[dict[str, Any]]:
    """Rows without their source."""
    torch.set_num_threads(1)
    rng = random.Random(seed)
    right, bad = draw_cases(Recommender.load(folder), rng)
    cases = [rng.choice(right if rng.random() < 0.8 else bad) for _ in range(requests)]
    serve = [sys.executable, str(ROOT / "examples" / "explorer" / "serve.py"), str(folder)]
    server = subprocess.Popen([*serve, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        host = server.stdout.readline().split()[0].removeprefix("http://")
        shares = [cases[i::clients] for i in range(clients)]
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            found = pool.map(lambda share: list(map(Client(host), share)), shares)
            results = [result for share in found for result in share]
        seconds = time.perf_counter() - start
    finally:
        server.terminate()
        server.wait()
    rows = []
    for kind in ["all", *sorted({case.kind for case in cases})]:
        of_kind = [(ms, how) for name, ms, how in results if kind in ("all", name)]
        times = np.array([ms for ms, _ in of_kind])
        counts = {how: sum(h == how for _, h in of_kind) for how in ("wrong", "lost", "failed")}
        quantiles = np.quantile(times, [0.5, 0.99, 1.0])
        names = ("p50_ms", "p99_ms", "max_ms")
        cost = {name: f"{x:.1f}" for name, x in zip(names, quantiles, strict=True)}
        rows.append({"kind": kind, "requests": len(of_kind), **counts, **cost})
    rows[0]["requests_per_s"] = f"{requests / seconds:.1f}"
    return rows


def table(rows: list[dict[str, str]]) -> str:
    """The table of the page: the rows of the last run."""
    last = max(i for i, row in enumerate(rows) if row["kind"] == "all")
    rows = rows[last:]
    head = ["requests", "number", "wrong", "lost", "5xx", "median, ms", "p99, ms", "longest, ms"]
    text = markdown(head, ([row[c] for c in COLUMNS] for row in rows))
    start = f"`{rows[0]['recommender']}`, {rows[0]['clients']} clients"
    return f"{start}, {rows[0]['requests_per_s']} requests a second.\n\n{text}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dir", nargs="?", type=Path, metavar="DIR", help="a saved recommender")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROWS, help="rows (benchmarks/results/...)")
    parser.add_argument("--report", action="store_true", help="fill the page from the rows")
    args = parser.parse_args()
    if args.report:
        fill(PAGE, {"load": table(read_rows(args.out))})
        return
    if args.dir is None:
        parser.error("DIR is missing: the folder of a saved recommender")
    rows = load(args.dir, args.requests, args.clients, args.seed)
    keys = {"recommender": args.dir.name, "clients": args.clients, "seed": args.seed}
    source = {"commit": commit(), "versions": f"{versions()}; {os.cpu_count()} cores"}
    append_rows(args.out, HEADER, [{**keys, **row, **source} for row in rows])
    print(table(read_rows(args.out)))
    sys.exit(any(rows[0][name] for name in ("wrong", "lost", "failed")))


if __name__ == "__main__":
    main()
