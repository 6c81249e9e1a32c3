"""Hostile files for the readers: no crash but the documented errors, no memory taken, no code run.

    python -m tests.stress.fuzz                             # 200,000 inputs for each target
    python -m tests.stress.fuzz --target inter --inputs 5000 --out rows.csv
    python -m tests.stress.fuzz --report                    # the table of docs/reliability.md

Each input is written to a file and read in a process of the target's own, in parts of --part
inputs, each with a seed of its own. A finished part is kept below --work, so a command that was
stopped goes on where it was. Under atheris (pip install "gtc-pyg[fuzz]"; Linux) the inputs are led
by coverage; without it they are drawn by the mutations alone. A fault, whose input is kept, is

    an error that the reader does not document or that names no file; an unsound result
    more than 256 MiB taken, or 1 GiB asked for (the process may have no more), for one input
    20 seconds without an answer; a process that ends
    a program started, a connection, a file written, code executed (seen by an audit hook)

The exit status is 0 where there was none. A row for each target is appended to --out:

    accepted, refused   inputs read, and refused by a documented error
    outcomes            errors by class
    messages            different messages, numbers and quoted parts left out
    growth_mib          how far the process grew beyond what it had after reading the valid files
"""

import argparse
import collections
import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import (
    DOCS,
    RESULTS,
    ROOT,
    append_rows,
    fill,
    markdown,
    read_rows,
    source,
    write_text,
)
from tests.stress.fuzz_worker import MIB, MOST_SECONDS

ROWS = RESULTS / "fuzz.csv"
PAGE = DOCS / "reliability.md"
NAMES = (
    *("inter", "config", "settings", "folder", "npy", "npz", "pickle"),
    *("ratings", "metadata", "images", "tags", "processed"),
)
HEADER = [
    *("target", "engine", "seed", "inputs", "accepted", "refused", "outcomes", "messages"),
    *("faults", "growth_mib", "seconds", "commit", "versions"),
]


def part_of(args: argparse.Namespace, target: str, index: int, inputs: int) -> dict[str, Any]:
    """The result of a part, from its file or a process; one that ends early is a fault."""
    kept = args.work / target
    kept.mkdir(parents=True, exist_ok=True)
    result = kept / f"part-{args.engine}-{args.seed}-{args.part}-{index}.json"
    if result.exists():
        return dict(json.loads(result.read_text()))
    command = [sys.executable, "-m", "tests.stress.fuzz_worker", "--target", target]
    command += ["--inputs", str(inputs), "--engine", args.engine]
    command += ["--seed", str(args.seed * 100_003 + index)]
    command += ["--work", str(args.work), "--result", str(result)]
    start = time.perf_counter()
    with (kept / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        how = _wait(process, kept / "last")
    if how or not result.exists():
        name = f"fault-ended-{index}"
        if (kept / "last").exists():
            shutil.copyfile(kept / "last", kept / name)
        tail = (kept / "log").read_text(errors="replace")[-500:]
        found = {f"ended: {how or process.returncode}": {"count": 1, "input": name, "error": tail}}
        empty = {"inputs": 0, "outcomes": {}, "messages": [], "growth": 0}
        return {**empty, "faults": found, "seconds": time.perf_counter() - start}
    text = json.loads(result.read_text()) | {"seconds": time.perf_counter() - start}
    write_text(result, json.dumps(text))
    return dict(text)


def _wait(process: subprocess.Popen[bytes], last: Path) -> str:
    """Ends a process that has not touched its last input for long, in code that no alarm ends."""
    while True:
        try:
            process.wait(10)
            return ""
        except subprocess.TimeoutExpired:
            if last.exists() and time.time() - last.stat().st_mtime > 6 * MOST_SECONDS:
                process.kill()
                process.wait()
                return "no answer"


def fuzz(args: argparse.Namespace, target: str) -> dict[str, Any]:
    """All parts of a target, and its row."""
    outcomes: collections.Counter[str] = collections.Counter()
    messages: set[str] = set()
    faults: dict[str, Any] = {}
    inputs, growth, seconds = 0, 0, 0.0
    for index, first in enumerate(range(0, args.inputs, args.part)):
        found = part_of(args, target, index, min(args.part, args.inputs - first))
        inputs += found["inputs"]
        outcomes.update(found["outcomes"])
        messages.update(found["messages"])
        for key, fault in found["faults"].items():
            faults.setdefault(key, fault)
        growth, seconds = max(growth, found["growth"]), seconds + found["seconds"]
        done = f"{target}: {inputs:,} inputs, {len(messages)} messages, {len(faults)} faults"
        print(f"{done}, {growth / MIB:.0f} MiB, {seconds:.0f} s", file=sys.stderr, flush=True)
    for key, fault in faults.items():
        place = args.work / target / fault["input"]
        print(f"FAULT {target}: {key} ({place}): {fault['error']}", file=sys.stderr, flush=True)
    accepted = outcomes.pop("accepted", 0)
    return {
        "target": target,
        "inputs": inputs,
        "accepted": accepted,
        "refused": sum(outcomes.values()),
        "outcomes": "; ".join(f"{name} {count}" for name, count in sorted(outcomes.items())),
        "messages": len(messages),
        "faults": len(faults),
        "growth_mib": f"{growth / MIB:.1f}",
        "seconds": f"{seconds:.0f}",
    }


def table(rows: Sequence[dict[str, str]]) -> str:
    """The table of the page: the last row of each target and engine."""
    last = {(row["target"], row["engine"]): row for row in rows}
    head = ["reader", "engine", "inputs", "read", "refused", "different messages", "faults"]
    head.append("growth, MiB")
    body = []
    for row in last.values():
        counts = [f"{int(row[name]):,}" for name in ("inputs", "accepted", "refused", "messages")]
        body.append([row["target"], row["engine"], *counts, row["faults"], row["growth_mib"]])
    return markdown(head, body)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--inputs", type=int, default=200_000, help="for each target (200000)")
    parser.add_argument("--part", type=int, default=20_000, help="inputs of one process (20000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("atheris", "mutation"), help="atheris where it is")
    parser.add_argument("--work", type=Path, default=ROOT / "outputs" / "fuzz", help="kept files")
    parser.add_argument("--out", type=Path, default=ROWS, help="rows (benchmarks/results/fuzz.csv)")
    parser.add_argument("--report", action="store_true", help="fill the page from the rows")
    args = parser.parse_args(argv)
    if args.report:
        fill(PAGE, {"fuzz": table(read_rows(args.out))})
        return 0
    has_atheris = importlib.util.find_spec("atheris") is not None
    args.engine = args.engine or ("atheris" if has_atheris else "mutation")
    args.work = args.work.resolve()
    faults = 0
    for target in args.target:
        row = fuzz(args, target)
        faults += row["faults"]
        row |= {"engine": args.engine, "seed": args.seed, **source()}
        append_rows(args.out, HEADER, [row])
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
