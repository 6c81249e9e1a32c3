"""Kills training with SIGKILL at random moments, resumes, and compares bit by bit.

    python -m tests.stress.kill_resume --kills 60              # exit status 0 when all held, else 1
    python -m tests.stress.kill_resume --kills 60 --out benchmarks/results/kill_resume.csv
    python -m tests.stress.kill_resume --report                # the table of docs/reliability.md

Eight tasks on planted data take turns: GTC (with weight averaging), FREEDOM and LightGCN, each with
the whole graph and with mini-batches, trained by fit(..., resume=True); a command of the examples
with --resume and --out; and Recommender.write. Each is done once without a kill. Then a process of
its own begins anew in an empty folder, tells through a pipe what it is doing (a step, evaluating,
writing a checkpoint, rows or lists), and is killed: at a random one of these moments, after a
random part of the time that it took without kills. Another process goes on, and is killed again,
up to five times, until one is allowed to finish. Kinds that a task was hit in least so far are
aimed at first; what counts is what the process said last.

It holds when weights, history, best epoch, metrics and logs, rows (but for time, memory, commit and
versions) or lists are those of the task without a kill, and when no file under its final name was
torn after any kill. After some kills of training the last checkpoint is damaged besides, cut or
overwritten in the middle: a warning must say so, and the end must be the same.

A row for each kill is written to --out, which is replaced. Mini-batches need torch-sparse; without
it those tasks are left out, and it is said. Linux and macOS.
"""

import math
import multiprocessing
import random
import sys
import tempfile
import time
import warnings
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from benchmarks.harness import DOCS, RESULTS, fill, read_rows, source, write_rows
from gtc_pyg.lightning.checkpoints import LAST, PREVIOUS, CheckpointFiles, read_checkpoint
from tests.stress.kill_resume_worker import (
    COMMAND,
    LISTS,
    SAMPLED,
    TRAINED,
    Process,
    Say,
    durations,
)

ROWS = RESULTS / "kill_resume.csv"
PAGE = DOCS / "reliability.md"
HEADER = [
    "task",
    "seed",
    "kill",
    "moment",
    "detail",
    "after_seconds",
    "epochs_kept",
    "damaged",
    "held",
    "commit",
    "versions",
]
ALL = [*TRAINED, COMMAND, LISTS]
MOMENTS = {
    "step": "in a step",
    "evaluation": "evaluating",
    "checkpoint": "writing a checkpoint",
    "rows": "writing rows",
    "lists": "writing lists",
    "other": "elsewhere",
}
MOST_KILLS, ENOUGH = 5, 24


def tasks() -> list[str]:
    """What can be done here."""
    sampling = WITH_PYG_LIB or WITH_TORCH_SPARSE
    return [task for task in ALL if sampling or not task.endswith(SAMPLED)]


def torn(folder: Path, spoiled: bytes = b"") -> list[str]:
    """Files under their final names that are not whole, but for one that was ``spoiled`` here."""
    found = []
    for path in folder.rglob("*.ckpt"):
        try:
            read_checkpoint(path)
        except ValueError as error:
            if path.read_bytes() != spoiled:
                found.append(str(error))
    rows = read_rows(folder / "rows.csv")
    if len(rows) % 24 or any(None in r.values() for r in rows):
        found.append(f"rows.csv has {len(rows)} rows, of 24 for each run")
    lists_path = folder / "lists.csv"
    if lists_path.exists() and len(lists_path.read_text().splitlines()) != 301:
        found.append("lists.csv is not whole")
    return found


def epochs_kept(folder: Path) -> int:
    """Of the newest checkpoint of a run."""
    with warnings.catch_warnings(action="ignore"):
        found = CheckpointFiles(folder / "checkpoints" / "model").newest()
    return 0 if found is None else found[1]["epoch"] + 1


def damage(last: Path, rng: random.Random) -> str:
    """Cuts the last checkpoint or overwrites its middle."""
    content = bytearray(last.read_bytes())
    if rng.random() < 0.5:
        last.write_bytes(content[: rng.randrange(len(content))])
        return "cut"
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
    last.write_bytes(content)
    return "overwritten"


class Chain:
    """A run that is killed and gone on with until it is done.

    Args:
        task: What is run.
        folder: Where; made here.
        seed: Of the run.
        whole: The same without a kill.
    """

    def __init__(self, task: str, folder: Path, seed: int, whole: Process) -> None:
        self.task, self.folder, self.seed, self.whole = task, folder, seed, whole
        self.rng = random.Random(f"{task}/{folder.name}/{seed}")
        self.counts = Counter(text.split()[0] for _, text in whole.said)
        self.delays = durations(whole.said)
        self.rows: list[dict[str, Any]] = []
        self.wrong: list[str] = []
        self.spoiled, self.warned = b"", True
        self.compared = False
        folder.mkdir()

    def kill(self, hits: Counter[str]) -> bool:
        """Goes on until killed; ``False`` where it was done before."""
        process = Process(self.task, self.folder, self.seed)
        moment = min(self.counts, key=lambda m: hits[m] + self.rng.random())
        number = self.rng.randint(1, math.ceil(self.counts[moment] / 3))
        if not process.kill_at(moment, number, self.delays, self.rng.random()):
            self.compare(process)
            return False
        self.check_warning(process)
        after, text = process.said[-1] if process.said else (0.0, "other")
        self.wrong += torn(self.folder, self.spoiled)
        row = {"task": self.task, "seed": self.seed, "moment": text.split()[0], "detail": text}
        row |= {"after_seconds": f"{after:.2f}", "epochs_kept": "", "damaged": "no"}
        if self.task in TRAINED:
            row["epochs_kept"] = epochs_kept(self.folder)
            last, previous = (self.folder / "checkpoints" / "model" / n for n in (LAST, PREVIOUS))
            there = last.exists() and previous.exists() and self.warned
            if there and self.rng.random() < 1 / 2:
                row["damaged"] = damage(last, self.rng)
                self.spoiled, self.warned = last.read_bytes(), False
        hits[row["moment"]] += 1
        self.rows.append(row)
        return True

    def finish(self) -> None:
        """Lets it finish, and compares."""
        process = Process(self.task, self.folder, self.seed)
        process.finish()
        self.compare(process)

    def check_warning(self, process: Process) -> None:
        """A damaged checkpoint must be warned of before anything is done."""
        if self.warned:
            return
        texts = [text for _, text in process.said]
        if any(text.startswith("warned") and "is damaged" in text for text in texts):
            self.warned = True
        elif texts:
            self.wrong.append("a damaged checkpoint was not warned of")

    def compare(self, process: Process) -> None:
        """Notes what is not as without a kill."""
        self.compared = True
        self.check_warning(process)
        if process.outcome is None:
            log = self.folder.with_suffix(".log").read_text()
            self.wrong.append(f"the process failed, exit status {process.process.exitcode}: {log}")
            return
        whole = self.whole.outcome or {}
        for name in sorted(whole.keys() | process.outcome.keys()):
            if whole.get(name) != process.outcome.get(name):
                self.wrong.append(f"{name} is not what it is without a kill")


def without_kill(task: str, folder: Path, seed: int) -> Process:
    """The task done at a stretch.

    Raises:
        RuntimeError: Where it fails.
    """
    folder.mkdir()
    process = Process(task, folder, seed)
    process.finish()
    if process.outcome is None:
        raise RuntimeError(f"{task} failed: {folder.with_suffix('.log').read_text()}")
    return process


def run(
    chosen: Sequence[str], kills: int, seed: int, out: Path | None, show: Say = print
) -> tuple[list[dict[str, Any]], list[str]]:
    """All kills; their rows, and what did not hold."""
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    rng = random.Random(seed)
    made = source()
    with tempfile.TemporaryDirectory() as scratch:
        whole = {}
        for i, task in enumerate(chosen):
            whole[task] = without_kill(task, Path(scratch) / f"whole-{i}", seed)
            show(f"{task}: {whole[task].said[-1][0]:.1f} s without a kill")
        number = 0
        while len(rows) < kills:
            task = chosen[number % len(chosen)]
            chain = Chain(task, Path(scratch) / str(number), seed, whole[task])
            most = min(rng.randint(2, MOST_KILLS), kills - len(rows))
            while len(chain.rows) < most and chain.kill(hits[task]):
                row = chain.rows[-1]
                told = f"{row['detail']}, after {row['after_seconds']} s, damaged: {row['damaged']}"
                show(f"kill {len(rows) + len(chain.rows)} of {kills}: {task}: {told}")
            if not chain.compared:
                chain.finish()
            held = {"held": int(not chain.wrong), **made}
            rows += [
                row | held | {"kill": len(rows) + i} for i, row in enumerate(chain.rows, start=1)
            ]
            wrong += [f"{task}, run {number}: {what}" for what in chain.wrong]
            show(f"{task}: {'the same end' if not chain.wrong else '; '.join(chain.wrong)}")
            if out is not None:
                write_rows(out, HEADER, rows)
            number += 1
    found = {row["moment"] for row in rows}
    missed = {"step", "evaluation", "checkpoint"} - found if kills >= ENOUGH else ()
    return rows, [*wrong, *(f"nothing was killed {MOMENTS[moment]}" for moment in missed)]


def report(rows: Sequence[Mapping[str, str]]) -> str:
    """The table of the page: kills of each task by moment."""
    lines = ["| what is killed | " + " | ".join(MOMENTS.values()) + " | damaged besides | held |"]
    lines.append("|---|" + "---:|" * (len(MOMENTS) + 2))
    names = dict.fromkeys(row["task"] for row in rows)
    for name in [*names, "all"]:
        own = [row for row in rows if name in (row["task"], "all")]
        moments = Counter(row["moment"] for row in own)
        damaged = sum(row["damaged"] != "no" for row in own)
        held = sum(row["held"] == "1" for row in own)
        cells = [*(moments[m] for m in MOMENTS), damaged, f"{held} of {len(own)}"]
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, help="default: 60")
    parser.add_argument("--seed", type=int, default=0, help="of data, training and kills")
    parser.add_argument("--tasks", nargs="+", choices=ALL, help="default: all")
    parser.add_argument("--out", type=Path, help="CSV file of the rows, a row for each kill")
    parser.add_argument("--report", action="store_true", help="write the page's table, no kills")
    args = parser.parse_args(argv)
    if args.report:
        fill(PAGE, {"kills": report(read_rows(args.out or ROWS))})
        return 0
    chosen = args.tasks or tasks()
    for task in ALL:
        if task not in tasks():
            print(f"{task}: left out, torch-sparse is not installed", file=sys.stderr)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "gtc_pyg.experiment", "gtc_pyg.recommend"])
    start = time.perf_counter()
    show = partial(print, file=sys.stderr, flush=True)
    rows, wrong = run(chosen, args.kills, args.seed, args.out, show)
    texts = [{key: str(value) for key, value in row.items()} for row in rows]
    print(report(texts))
    print(f"\n{len(rows)} kills in {time.perf_counter() - start:.0f} s: ", end="")
    print("all held" if not wrong else "NOT HELD:\n" + "\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
