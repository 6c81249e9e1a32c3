"""Memory of a long training: whether it grows.

    python -m tests.stress.memory_flat --root data/lfm2k           # 500 epochs of GTC on LFM-2k
    python -m tests.stress.memory_flat --root data/lfm2k --epochs 20 --out rows.csv
    python -m tests.stress.memory_flat --report                    # the line of docs/reliability.md

GTC is trained with the settings of examples/lfm2k.py, without early stopping. After each epoch,
validation and checkpoint included, the resident memory of the process is taken (Linux). Growth is

    (mean of the last tenth of the epochs) / (mean of the second tenth) - 1

the first tenth being left out, in which buffers and caches are filled. The exit status is 0 where
growth is below 2 %. A row for each epoch replaces those in --out.
"""

import argparse
import gc
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.harness import DOCS, RESULTS, fill, read_rows, write_rows
from benchmarks.harness.data import load
from benchmarks.harness.settings import example_settings
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment import Settings
from gtc_pyg.experiment.settings import train
from gtc_pyg.utils.provenance import commit, versions

ROWS = RESULTS / "memory_flat.csv"
PAGE = DOCS / "reliability.md"
HEADER = ["dataset", "model", "seed", "epoch", "resident_mib", "seconds", "commit", "versions"]
MOST = 0.02


class Resident(Callback):
    """Resident memory in MiB, and the seconds since the start, after each epoch."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float]] = []
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        gc.collect()  # cycles that are let go some time later are no growth
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        mib = pages * resource.getpagesize() / 2**20
        self.rows.append((mib, time.perf_counter() - self.start))


def growth(resident: Sequence[float]) -> float:
    """Of the mean from the second tenth of the epochs to the last."""
    tenth = len(resident) // 10
    if tenth == 0:
        raise ValueError(f"at least 10 epochs are needed (got {len(resident)})")
    return statistics.fmean(resident[-tenth:]) / statistics.fmean(resident[tenth : 2 * tenth]) - 1


def measure(
    dataset: InteractionDataset, settings: Settings, epochs: int, seed: int
) -> list[tuple[float, float]]:
    """Resident MiB and seconds after each epoch."""
    resident = Resident()
    settings = replace(settings, epochs=epochs, patience=epochs)
    with tempfile.TemporaryDirectory() as out:
        train("gtc", dataset, settings, seed, out=out, progress=False, callbacks=[resident])
    return resident.rows


def report(rows: Sequence[dict[str, str]]) -> str:
    """The line of the page."""
    resident = [float(row["resident_mib"]) for row in rows]
    percent = 100 * growth(resident)
    return (
        f"GTC on LFM-2k, {len(rows)} epochs, resident memory after each: {min(resident):.1f} to "
        f"{max(resident):.1f} MiB, growth {percent:+.2f} %."
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default="data/lfm2k", help="folder with raw/ (data/lfm2k)")
    parser.add_argument("--epochs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROWS, help="rows (results/memory_flat.csv)")
    parser.add_argument("--report", action="store_true", help="fill the page from the rows")
    args = parser.parse_args(argv)
    if args.report:
        fill(PAGE, {"memory": report(read_rows(args.out))})
        return 0
    if args.epochs < 10:
        parser.error(f"--epochs must be at least 10 (got {args.epochs})")
    torch.set_num_threads(args.threads)
    made = commit()
    dataset, settings = load("lfm2k", args.root), example_settings("lfm2k")["gtc"]
    found = measure(dataset, settings, args.epochs, args.seed)
    shared: dict[str, Any] = {"dataset": "lfm2k", "model": "gtc", "seed": args.seed}
    shared |= {"commit": made, "versions": f"{versions()}; {os.cpu_count()} cores"}
    rows = [
        {**shared, "epoch": epoch, "resident_mib": f"{mib:.2f}", "seconds": f"{seconds:.1f}"}
        for epoch, (mib, seconds) in enumerate(found, start=1)
    ]
    write_rows(args.out, HEADER, rows)
    print(report(read_rows(args.out)))
    return int(growth([mib for mib, _ in found]) >= MOST)


if __name__ == "__main__":
    sys.exit(main())
