"""Time per interaction and memory of training on mini-batches, as graphs grow.

    python benchmarks/growth.py                              # 10^5 to 2 x 10^7 interactions
    python benchmarks/growth.py --interactions 1000000 --batch 256 --models gtc
    python benchmarks/growth.py --whole --batch 2048 --steps 20 --turn 4 --interactions 1000000
    python benchmarks/growth.py --items 30000 300000         # item graphs, all pairs
    python benchmarks/growth.py --report                     # table, plot, page

Planted graphs with 20 interactions a user and 67 an item, so 2 x 10^7 have 1,000,000 users and
300,000 items, and two modalities of width 128. Users and items belong to groups; four interactions
of five stay within one. An item's ten similar items are drawn from its group (that graph's own cost
is measured by --items). LightGCN, which reads neither content nor item graph, gets neither.

Each size has a process of its own, and for one model all are kept ready. Turn by turn, in
alternating order, each trains a few steps at a fixed fan-out while the others wait, so that a noisy
machine slows all alike. A turn begins with steps that are not timed, a quarter as many as those
that are: they find the caches of another process. A row has the time of a step, its ratio to the
next smaller size and to the smallest in the same rounds, the share of sampling, how much graph a
step saw, and the peak memory of set-up and of training beside what tables with their optimizer
states, content and adjacency take. An epoch is extrapolated from these steps. --whole trains with
the whole graph in every step instead. The rows of a model are appended to --out when all sizes have
their steps; what is there is skipped. Processes keep freed memory as docs/speed.md describes. Linux
only.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from gtc_pyg.experiment import _commit, _versions

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks import speed
from benchmarks.growth_worker import serve
from benchmarks.rows import append_rows, read_rows
from benchmarks.speed_worker import spread

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "growth.csv"
KEY = ["what", "model", "interactions", "sizes", "fan_out", "item_fan_out"]
KEY += ["batch", "seed", "threads"]
HEADER = [*KEY, "users", "items", "steps", "rounds"]
HEADER += ["sampled_users", "sampled_items", "sampled_edges"]
HEADER += ["step_s", "quartile_1_s", "quartile_3_s", "sampling_s", "us_per_interaction"]
HEADER += ["to_previous_median", "to_previous_q1", "to_previous_q3"]
HEADER += ["to_smallest_median", "to_smallest_q1", "to_smallest_q3"]
HEADER += ["epoch_steps", "epoch_extrapolated_s", "setup_peak_mib", "peak_mib"]
HEADER += ["tables_mib", "content_mib", "adjacency_mib", "commit", "versions"]
WARM_UP = 20
Turn = list[tuple[float, float]]


class Worker(speed.Worker):
    """A process of its own for one run, see growth_worker.py."""

    def __init__(self, run: dict[str, Any]) -> None:
        # Threads that wait sleep: those of other sizes are on the same cores.
        threads = {"OMP_NUM_THREADS": str(run["threads"]), "OMP_WAIT_POLICY": "passive"}
        self.name = f"{run['what']}, {run['model']}, {run['interactions']}"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__)), "--worker", json.dumps(run)],
            env=os.environ | speed.KEEP | threads | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def measure(runs: list[dict[str, Any]], turn: int, warm_up: int) -> list[dict[str, object]]:
    """The rows of runs that take turns. An item graph is alone and has none."""
    workers: list[Worker] = []
    turns: list[list[Turn]] = [[] for _ in runs]
    try:
        for run in runs:  # set up one after the other
            workers.append(Worker(run))
            if run["rounds"]:
                workers[-1].ask("time", 0, warm_up)
        pairs = list(zip(workers, turns, strict=True))
        for i in range(runs[0]["rounds"] or 0):
            for worker, own in pairs[:: 1 - 2 * (i % 2)]:
                own.append(worker.ask("time", turn, max(1, turn // 4)))
        rows = [run | worker.ask("about") for run, worker in zip(runs, workers, strict=True)]
    finally:
        for worker in workers:
            worker.process.communicate()  # closes its input, at which it ends
    return with_times(rows, turns) if runs[0]["rounds"] else rows


def with_times(rows: list[dict[str, Any]], turns: list[list[Turn]]) -> list[dict[str, object]]:
    """Rows with medians over steps, and with ratios to other sizes of medians of the same round.

    Args:
        rows: Of each size, the smallest first.
        turns: Of each size in each round: seconds of each step, and of sampling in it.
    """
    medians = [[statistics.median(step for step, _ in turn) for turn in own] for own in turns]
    timed = []
    for i, row in enumerate(rows):
        steps, sampling = zip(*itertools.chain.from_iterable(turns[i]), strict=True)
        q1, step, q3 = statistics.quantiles(steps, n=4, method="inclusive")
        others = {"previous": medians[max(i - 1, 0)], "smallest": medians[0]}
        ratios = {
            f"to_{name}_{key}": f"{value:.4f}"
            for name, other in others.items()
            for key, value in spread(medians[i], other).items()
        }
        times = {
            "step_s": f"{step:.5f}",
            "quartile_1_s": f"{q1:.5f}",
            "quartile_3_s": f"{q3:.5f}",
            "sampling_s": f"{statistics.median(sampling):.5f}",
            "us_per_interaction": f"{1e6 * step / row['batch']:.1f}",
            "epoch_extrapolated_s": f"{step * row['epoch_steps']:.0f}",
        }
        timed.append(row | times | ratios)
    return timed


def runs_of(args: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """What the options ask for: groups of runs that take turns."""
    shared = {"threads": args.threads, "seed": args.seed}
    if args.items:
        empty = ["model", "sizes", "fan_out", "item_fan_out", "batch", "rounds"]
        alone = {"what": "item graph", **dict.fromkeys(empty, ""), **shared}
        return [[alone | {"interactions": n}] for n in args.items]
    hops = {"fan_out": json.dumps(args.fan_out), "item_fan_out": json.dumps(args.item_fan_out)}
    sizes, rounds = sorted(set(args.interactions)), -(-args.steps // args.turn)
    return [
        [
            {
                "what": "whole graph" if args.whole else "mini-batches",
                "model": model,
                "interactions": n,
                "sizes": json.dumps(sizes),
                **(dict.fromkeys(hops, "") if args.whole else hops),
                "batch": args.batch,
                "steps": rounds * args.turn,
                "rounds": rounds,
                **shared,
            }
            for n in sizes
        ]
        for model in args.models
    ]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes, models = [10**5, 10**6, 10**7, 2 * 10**7], ["lightgcn", "freedom", "gtc"]
    parser.add_argument("--interactions", type=int, nargs="+", default=sizes)
    parser.add_argument("--models", nargs="+", choices=models, default=models)
    parser.add_argument("--batch", type=int, default=32, help="interactions a step (default: 32)")
    parser.add_argument(
        "--fan-out", type=int, nargs="+", default=[3, 2], help="interactions, by hop (default: 3 2)"
    )
    parser.add_argument(
        "--item-fan-out", type=int, nargs="+", default=[2, 0], help="similar items (default: 2 0)"
    )
    parser.add_argument("--steps", type=int, default=500, help="timed, each size (default: 500)")
    parser.add_argument("--turn", type=int, default=20, help="timed in a turn (default: 20)")
    parser.add_argument("--warm-up", type=int, default=WARM_UP, help="steps before (default: 20)")
    parser.add_argument("--whole", action="store_true", help="the whole graph in every step")
    parser.add_argument("--items", type=int, nargs="+", help="measure item graphs of these sizes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the result rows")
    parser.add_argument("--report", action="store_true", help="write the page's tables, draw")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if len(args.fan_out) != len(args.item_fan_out):
        parser.error("--fan-out and --item-fan-out must have as many hops")
    if not 1 <= args.turn < args.steps:
        parser.error(f"--steps must be more than a turn of {args.turn} (got {args.steps})")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    if args.worker:
        serve(json.loads(args.worker))
        return
    if args.report:
        from benchmarks.growth_report import write

        write(read_rows(args.out))
        return
    for runs in runs_of(args):
        done = [[row[key] for key in KEY] for row in read_rows(args.out)]
        if [str(runs[0][key]) for key in KEY] in done:
            continue
        rows = measure(runs, args.turn, args.warm_up)
        source = {"commit": _commit(), "versions": _versions()}
        append_rows(args.out, HEADER, [row | source for row in rows])
        shown = ["what", "model", "interactions", "step_s", "us_per_interaction"]
        shown += ["to_smallest_median", "peak_mib"]
        for row in rows:
            print(", ".join(f"{key} {row[key]}" for key in shown if row.get(key)), flush=True)


if __name__ == "__main__":
    main()
