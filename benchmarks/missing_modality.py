"""GTC where some items lack a modality: nothing, the mean or generated content in its place.

    python benchmarks/missing_modality.py --root data/lfm2k                 # text on LFM2k
    python benchmarks/missing_modality.py --root data/tiktok --dataset tiktok
    python benchmarks/missing_modality.py --given alone --root data/lfm2k    # see below
    python benchmarks/missing_modality.py --report                          # tables, plot, page

The modality is removed from a share of the items, drawn by the seed, and put back in by a fill:

    complete  nothing was removed
    zero      zeros; the item graph leaves such items alone
    mean      the mean of the items that have it
    learned   zeros for the item graph, a learned vector for the model
    ridge     a ridge regression from a spectral embedding of the interactions
    fill      gtc_pyg.imputation.modality_filler.ModalityFiller
    content   the same, but zeros for the item graph, which leaves such items alone

Then the item graph is built of what came out, and GTC is trained with the settings of the example
scripts. With --given alone it is given this modality and no other, so that all depends on it; the
other modalities serve the fill alone. Fills see training interactions only. A row for each run is
appended to --out; runs whose row is there are skipped, so an interrupted command can be repeated.
--no-train measures the content alone (recall stays empty), with two more fills: others (ridge
regression from the other modalities) and neighbors (mean of items with users in common).
"""

import argparse
import runpy
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from gtc_pyg.datasets import LFM2k, TikTok
from gtc_pyg.experiment import _commit, _versions, train
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.missing_modality_fills import (
    MEASURED,
    REMOVED,
    TRAINED,
    fill_content,
    present_rows,
    quality,
)
from benchmarks.missing_modality_report import PAGE, draw, with_tables
from benchmarks.options import with_root
from benchmarks.rows import append_rows, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "missing_modality.csv"
HEADER = [
    "dataset",
    "modality",
    "given",
    "rate",
    "condition",
    "seed",
    "val_recall@20",
    "test_recall@20",
    "test_ndcg@20",
    "cosine",
    "overlap",
    "best_epoch",
    "seconds",
    "commit",
    "versions",
]
KEY = HEADER[:6]
DATASETS = {"lfm2k": LFM2k, "tiktok": TikTok}


class _Replace(BaseTransform):
    """Puts filled content in, and builds the item graph of it or of other content."""

    def __init__(
        self, modality: str, x: Tensor, of_graph: Tensor, has: Tensor | None, alone: bool
    ) -> None:
        self.modality, self.x, self.of_graph, self.has = modality, x, of_graph, has
        self.graph = ItemKNNGraph(k=10, weights={modality: 1.0} if alone else None)

    def forward(self, data: HeteroData) -> HeteroData:
        data["item"][f"x_{self.modality}"] = self.of_graph
        if self.has is not None:
            data["item"][f"has_{self.modality}"] = self.has
        data = self.graph(data)
        data["item"][f"x_{self.modality}"] = self.x
        return data


def run_one(args: argparse.Namespace, row: dict[str, object]) -> dict[str, object]:
    """One run: remove, fill, measure, and train unless asked not to."""
    cls, modality = DATASETS[args.dataset], REMOVED[args.dataset]
    condition, seed, rate = str(row["condition"]), int(str(row["seed"])), float(str(row["rate"]))
    plain = cls(args.root)
    num_users, num_items = plain.num_users, plain.num_items
    features, edge_index = plain.features, plain[0]["user", "rates", "item"].edge_index
    true, x, mask = features[modality], features[modality], None
    start = time.perf_counter()
    if condition != "complete":
        mask = present_rows(num_items, rate, seed)
        x = fill_content(condition, features, modality, mask, edge_index, num_users, seed)
        if condition not in ("zero", "learned"):
            cosine, overlap = quality(x, true, mask)
            row |= {"cosine": f"{cosine:.4f}", "overlap": f"{overlap:.4f}"}
    if not args.no_train:
        alone = args.given == "alone"
        modalities = [modality] if alone else None
        has = mask if condition == "learned" else None
        absent = condition == "content" and mask is not None
        of_graph = torch.where(mask.view(-1, 1), x, 0.0) if absent else x
        dataset = cls(args.root, pre_transform=_Replace(modality, x, of_graph, has, alone))
        script = ROOT / "examples" / f"{args.dataset}.py"
        chosen = runpy.run_path(str(script))["SETTINGS"]["gtc"]
        more = {"incomplete": (modality,)} if has is not None else {}
        chosen = replace(chosen, modalities=modalities, model={**chosen.model, **more})
        epochs = {"epochs": args.epochs} if args.epochs else {}
        with tempfile.TemporaryDirectory() as folder:
            result = train("gtc", dataset, chosen, seed, out=folder, progress=False, **epochs)
        row |= {
            "val_recall@20": f"{result.val['Recall@20']:.6f}",
            "test_recall@20": f"{result.test['Recall@20']:.6f}",
            "test_ndcg@20": f"{result.test['NDCG@20']:.6f}",
            "best_epoch": result.best_epoch,
        }
    seconds = time.perf_counter() - start
    return row | {"seconds": f"{seconds:.0f}", "commit": _commit(), "versions": _versions()}


def run(args: argparse.Namespace) -> None:
    """All runs that have no row yet, seed by seed."""
    conditions = args.conditions or (MEASURED if args.no_train else TRAINED)
    given = "content only" if args.no_train else args.given
    for seed in args.seed:
        for rate in args.rates:
            for condition in conditions:
                shared = [args.dataset, REMOVED[args.dataset], given]
                rate_of_row = 0.0 if condition == "complete" else rate
                row: dict[str, object] = dict(
                    zip(KEY, [*shared, rate_of_row, condition, seed], strict=True)
                )
                done = [[old[key] for key in KEY] for old in read_rows(args.out)]
                if [str(value) for value in row.values()] in done:
                    continue
                row = run_one(args, row)
                append_rows(args.out, HEADER, [row])
                shown = [
                    f"{key} {row[key]}" for key in HEADER[:-2] if row.get(key) not in (None, "")
                ]
                print(", ".join(shown), file=sys.stderr, flush=True)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", help="folder with raw/ (default: data/<dataset>)")
    parser.add_argument("--dataset", choices=list(DATASETS), default="lfm2k")
    parser.add_argument(
        "--given", choices=["all", "alone"], default="all", help="content that GTC is given"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[0.4, 0.6])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--conditions", nargs="+", help=f"default: {' '.join(TRAINED)}")
    parser.add_argument("--no-train", action="store_true", help="measure filled content alone")
    parser.add_argument("--epochs", type=int, help="largest number (default: the settings')")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, default=ROWS, help="CSV file of the result rows")
    parser.add_argument("--report", action="store_true", help="write the page's tables, draw")
    return with_root(parser.parse_args(argv))


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.report:
        rows = read_rows(args.out)
        write_text(PAGE, with_tables(PAGE.read_text(), rows))
        draw(rows)
    else:
        run(args)
