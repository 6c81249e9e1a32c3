"""Time per interaction and memory of training on mini-batches, as graphs grow."""

import argparse
import itertools
import json
import statistics
from collections.abc import Mapping
from typing import Any

from growth_report import PAGE, draw, texts
from harness import Experiment, Options, fill
from harness.workers import KEEP, Worker, ratios

GROWTH = Experiment(
    "growth",
    "what* model* interactions* sizes* fan_out* item_fan_out* batch* seed* threads* users items "
    "steps rounds sampled_users sampled_items sampled_edges step_s quartile_1_s quartile_3_s "
    "sampling_s us_per_interaction to_previous_median to_previous_q1 to_previous_q3 "
    "to_smallest_median to_smallest_q1 to_smallest_q3 epoch_steps epoch_extrapolated_s "
    "setup_peak_mib peak_mib tables_mib content_mib adjacency_mib",
)
MODELS = ["lightgcn", "freedom", "gtc"]
Turn = list[tuple[float, float]]


def start(run: Mapping[str, Any]) -> Worker:
    """A process of its own for one run, see growth_worker.py."""
    # Threads that wait sleep: those of other sizes are on the same cores.
    env = KEEP | {"OMP_NUM_THREADS": str(run["threads"]), "OMP_WAIT_POLICY": "passive"}
    name = f"{run['what']}, {run['model']}, {run['interactions']}"
    return Worker(name, "growth_worker", run, **env)


def measure(runs: list[dict[str, Any]], turn: int, warm_up: int) -> list[dict[str, object]]:
    """The rows of runs that take turns. An item graph is alone and has none."""
    workers: list[Worker] = []
    turns: list[list[Turn]] = [[] for _ in runs]
    try:
        for run in runs:  # set up one after the other
            workers.append(start(run))
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
        relative = {
            f"to_{name}_{key}": f"{value:.4f}"
            for name, other in others.items()
            for key, value in ratios(medians[i], other).items()
        }
        times = {
            "step_s": f"{step:.5f}",
            "quartile_1_s": f"{q1:.5f}",
            "quartile_3_s": f"{q3:.5f}",
            "sampling_s": f"{statistics.median(sampling):.5f}",
            "us_per_interaction": f"{1e6 * step / row['batch']:.1f}",
            "epoch_extrapolated_s": f"{step * row['epoch_steps']:.0f}",
        }
        timed.append(row | times | relative)
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
    shared |= {"what": "whole graph" if args.whole else "mini-batches", "sizes": json.dumps(sizes)}
    shared |= dict.fromkeys(hops, "") if args.whole else hops
    shared |= {"batch": args.batch, "steps": rounds * args.turn, "rounds": rounds}
    return [[shared | {"model": m, "interactions": n} for n in sizes] for m in args.models]


def run(args: argparse.Namespace) -> None:
    """All groups whose first run has no row yet."""
    groups = {tuple(runs[0][key] for key in GROWTH.key): runs for runs in runs_of(args)}

    def rows(cell: Mapping[str, Any]) -> list[dict[str, object]]:
        return measure(groups[tuple(cell.values())], args.turn, args.warm_up)

    GROWTH.run([dict(zip(GROWTH.key, key, strict=True)) for key in groups], rows, args.out)


def report(args: argparse.Namespace) -> None:
    rows = GROWTH.rows(args.out)
    fill(PAGE, texts(rows))
    draw(rows)


def options() -> Options:
    parser = Options(__file__, GROWTH.path, threads=2)
    parser.add("--interactions", [10**5, 10**6, 10**7, 2 * 10**7])
    parser.add("--models", MODELS, choices=MODELS)
    parser.add("--batch", 32, help="interactions a step")
    parser.add("--fan-out", [3, 2], help="interactions, by hop")
    parser.add("--item-fan-out", [2, 0], help="similar items")
    parser.add("--steps", 500, help="timed, each size")
    parser.add("--turn", 20, help="timed in a turn")
    parser.add("--warm-up", 20, help="steps before")
    parser.add("--whole", False, help="the whole graph in every step")
    parser.add("--items", type=int, nargs="+", help="measure item graphs of these sizes")
    parser.add("--seed", 0)
    return parser


def checked(args: argparse.Namespace) -> argparse.Namespace:
    """The options.

    Raises:
        SystemExit: Where they do not fit.
    """
    if len(args.fan_out) != len(args.item_fan_out):
        options().error("--fan-out and --item-fan-out must have as many hops")
    if not 1 <= args.turn < args.steps:
        options().error(f"--steps must be more than a turn of {args.turn} (got {args.steps})")
    return args


def main(argv: list[str] | None = None) -> None:
    options().start(argv, lambda args: run(checked(args)), report)


if __name__ == "__main__":
    main()
