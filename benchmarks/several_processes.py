"""What two processes gain over one, a core each: a training step, and the ranking of all users."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

from gtc_pyg.datasets import InteractionDataset, PlantedPreferences, TikTok
from gtc_pyg.distributed import rank, rank_zero_first, world_size
from gtc_pyg.experiment import build_model
from gtc_pyg.lightning import fit
from harness import DOCS, Experiment, Options, column, fill, markdown, pick, source
from harness.data import GRAPHS
from harness.stats import Rows

SEVERAL = Experiment("several_processes", "what* model* processes* round* seed seconds")
PAGE = DOCS / "several_processes.md"
WORK = {"whole graph": 20, "mini-batches": 10}  # steps an epoch
NAMES = {"gtc": "GTC", "lightgcn": "LightGCN"}
PLAIN = {"ranking": {"class": "BPR"}, "heads": [], "edge_dropout": 0.0}


def load(what: str, root: str) -> InteractionDataset:
    """The data of a kind of training, built by the first process."""
    if what == "whole graph":
        with rank_zero_first():
            return TikTok(root, untrained_users=True, pre_transform=GRAPHS["tiktok"])
    return PlantedPreferences(30_000, 10_000, mean_degree=20.0, transform=GRAPHS["tiktok"])


def work(what: str, root: str, number: int, out: Path) -> None:
    """Trains each model for three epochs of a few steps; the first is not counted."""
    torch.set_num_threads(1)
    dataset, steps = load(what, root), WORK[what]
    options = {"epochs": 3, "num_neighbors": None if what == "whole graph" else [10, 5]}
    options |= {"progress": False, "trainer_kwargs": {"limit_train_batches": steps}}
    options |= {"batch_size": 2048, "weight_averaging": 0.0, "spectral_start": False}
    for name in NAMES:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            result = fit(build_model(name, dataset, **PLAIN), dataset, out=folder, **options)
        seconds = {what: median(result.seconds[1:]) / steps}
        if what == "whole graph" and name == "lightgcn":
            seconds["ranking"] = median(result.evaluation_seconds[1:])
        shared = {"model": name, "processes": world_size(), "round": number, "seed": 0}
        if rank() == 0:
            shared |= source()
            rows = [shared | {"what": k, "seconds": f"{v:.5f}"} for k, v in seconds.items()]
            SEVERAL.append(out, rows)


def gain_table(rows: Rows) -> str:
    """Medians over rounds, and how many times faster two processes are."""
    if not rows:
        raise ValueError("no rows: nothing to show")
    body = []
    for what, model in dict.fromkeys((row["what"], row["model"]) for row in rows):
        own = pick(rows, what=what, model=model)
        one, two = (1e3 * median(column(pick(own, processes=n), "seconds")) for n in (1, 2))
        title = "all users ranked" if what == "ranking" else f"step, {what}"
        body.append([title, NAMES[model], f"{one:.1f}", f"{two:.1f}", f"{one / two:.2f}"])
    return markdown(["", "", "one process, ms", "two processes, ms", "gain"], body, "---|")


def run(args: argparse.Namespace) -> None:
    if args.work:
        return work(args.work[0], args.root, int(args.work[1]), args.out)
    for number in range(0 if args.write else args.rounds):
        for kind in args.kinds:
            rest = [__file__, "--root", args.root, "--out", str(args.out)]
            rest += ["--work", kind, str(number)]
            launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
            subprocess.run([sys.executable, *rest], check=True)
            subprocess.run([sys.executable, *launcher, "--", *rest], check=True)
    table = gain_table(SEVERAL.rows(args.out))
    print(table)
    if args.write:
        fill(PAGE, {"gain": table})


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, SEVERAL.path)
    parser.add("--root", "data/tiktok", help="folder with raw/ of TikTok")
    parser.add("--rounds", 3, help="of each")
    parser.add("--kinds", list(WORK), choices=list(WORK))
    parser.add("--write", False, help="put the table into the page")
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    parser.start(argv, run)


if __name__ == "__main__":
    main()
