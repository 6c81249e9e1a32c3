"""What two processes gain over one, a core each: a training step, and the ranking of all users.

    python benchmarks/several_processes.py --root data/tiktok             # measure, append rows
    python benchmarks/several_processes.py --write                        # table of the page

Whole graph: TikTok, batch 2048. Mini-batches: a planted graph of 30,000 users, 10,000 items and
about 600,000 interactions, batch 2048, 10 and 5 neighbours. Training runs through
gtc_pyg.lightning.fit; one and two processes take turns, --rounds times, one thread each. Rows go to
benchmarks/results/several_processes.csv (--out); a test holds the table of the page
docs/several_processes.md equal to the committed rows. Needs two idle cores, and torch-sparse.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from gtc_pyg.datasets import InteractionDataset, PlantedPreferences, TikTok
from gtc_pyg.distributed import rank, rank_zero_first, world_size
from gtc_pyg.experiment import _commit, _versions, build_model
from gtc_pyg.lightning import fit
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "several_processes.csv"
PAGE = ROOT / "docs" / "several_processes.md"
HEADER = ["what", "model", "processes", "round", "seed", "seconds", "commit", "versions"]
WORK = {"whole graph": 20, "mini-batches": 10}  # steps an epoch
NAMES = {"gtc": "GTC", "lightgcn": "LightGCN"}


def load(what: str, root: str) -> InteractionDataset:
    """The data of a kind of training, built by the first process."""
    if what == "whole graph":
        with rank_zero_first():
            return TikTok(root, pre_transform=ItemKNNGraph(k=10))
    return PlantedPreferences(30_000, 10_000, mean_degree=20.0, transform=ItemKNNGraph(k=10))


def work(what: str, root: str, number: int, out: Path) -> None:
    """Trains each model for three epochs of a few steps; the first is not counted."""
    torch.set_num_threads(1)
    dataset, steps = load(what, root), WORK[what]
    neighbors = None if what == "whole graph" else [10, 5]
    for name in NAMES:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            result = fit(
                build_model(name, dataset),
                dataset,
                epochs=3,
                num_neighbors=neighbors,
                out=folder,
                progress=False,
                trainer_kwargs={"limit_train_batches": steps},
            )
        step = statistics.median(result.seconds[1:]) / steps
        seconds = {what: step}
        if what == "whole graph" and name == "lightgcn":
            seconds["ranking"] = statistics.median(result.evaluation_seconds[1:])
        shared = {"model": name, "processes": world_size(), "round": number, "seed": 0}
        if rank() == 0:
            shared |= {"commit": _commit(), "versions": _versions()}
            rows = [shared | {"what": k, "seconds": f"{v:.5f}"} for k, v in seconds.items()]
            append_rows(out, HEADER, rows)


def gain_table(rows: list[dict[str, str]]) -> str:
    """Medians over rounds, and how many times faster two processes are."""
    if not rows:
        raise ValueError("no rows: nothing to show")
    lines = ["| | | one process, ms | two processes, ms | gain |", "|---|---|---|---|---|"]
    for what, model in dict.fromkeys((row["what"], row["model"]) for row in rows):
        one, two = (
            statistics.median(
                1e3 * float(row["seconds"])
                for row in rows
                if (row["what"], row["model"], row["processes"]) == (what, model, processes)
            )
            for processes in ("1", "2")
        )
        title = "all users ranked" if what == "ranking" else f"step, {what}"
        lines.append(f"| {title} | {NAMES[model]} | {one:.1f} | {two:.1f} | {one / two:.2f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default="data/tiktok", help="folder with raw/ of TikTok")
    parser.add_argument("--rounds", type=int, default=3, help="of each (default: 3)")
    parser.add_argument("--kinds", nargs="+", choices=list(WORK), default=list(WORK))
    parser.add_argument("--out", type=Path, default=ROWS, help="rows are appended to this file")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work[0], args.root, int(args.work[1]), args.out)
        sys.exit()
    if not args.write:
        for number in range(args.rounds):
            for kind in args.kinds:
                rest = [__file__, "--root", args.root, "--out", str(args.out)]
                rest += ["--work", kind, str(number)]
                launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
                subprocess.run([sys.executable, *rest], check=True)
                subprocess.run([sys.executable, *launcher, "--", *rest], check=True)
    table = gain_table(read_rows(args.out))
    print(table)
    if args.write:
        write_text(PAGE, between(PAGE.read_text(), "gain", table))
