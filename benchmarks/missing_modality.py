"""GTC where some items lack a modality: nothing, the mean or generated content in its place."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from gtc_pyg.transforms import ItemKNNGraph
from harness import Experiment, Options, fill
from harness.data import load, measured, outcome
from harness.settings import example_settings
from missing_modality_fills import MEASURED, REMOVED, TRAINED, fill_content, present_rows, quality
from missing_modality_report import PAGE, draw, texts

MISSING = Experiment(
    "missing_modality",
    "dataset* modality* given* rate* condition* seed* val_recall@20 test_recall@20 test_ndcg@20 "
    "cosine overlap best_epoch seconds",
)


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


def run_one(args: Namespace, cell: Mapping[str, Any]) -> dict[str, object]:
    """One run: remove, fill, measure, and train unless asked not to."""
    modality, condition, seed = cell["modality"], cell["condition"], cell["seed"]
    plain = load(args.dataset, args.root, None)
    features, edge_index = plain.features, plain[0]["user", "rates", "item"].edge_index
    row: dict[str, object] = {}
    x, mask = features[modality], None
    if condition != "complete":
        mask = present_rows(plain.num_items, cell["rate"], seed)
        x = fill_content(condition, features, modality, mask, edge_index, plain.num_users, seed)
        if condition not in ("zero", "learned"):
            found = zip(("cosine", "overlap"), quality(x, features[modality], mask), strict=True)
            row |= {name: f"{value:.4f}" for name, value in found}
    if args.no_train:
        return row
    alone = args.given == "alone"
    has = mask if condition == "learned" else None
    absent = condition == "content" and mask is not None
    of_graph = torch.where(mask.view(-1, 1), x, 0.0) if absent else x
    dataset = load(args.dataset, args.root, _Replace(modality, x, of_graph, has, alone))
    chosen = replace(
        example_settings(args.dataset)["gtc"], modalities=[modality] if alone else None
    )
    epochs = {"epochs": args.epochs} if args.epochs else {}
    result = measured("gtc", dataset, chosen, seed, **epochs)
    return row | outcome(result, MISSING.header)


def run(args: Namespace) -> None:
    shared = {"dataset": args.dataset, "modality": REMOVED[args.dataset]}
    shared["given"] = "content only" if args.no_train else args.given
    grid = [
        {**shared, "rate": 0.0 if name == "complete" else rate, "condition": name, "seed": seed}
        for seed in args.seed
        for rate in args.rates
        for name in args.conditions or (MEASURED if args.no_train else TRAINED)
    ]
    MISSING.run(grid, lambda cell: run_one(args, cell), args.out)


def report(args: Namespace) -> None:
    rows = MISSING.rows(args.out)
    fill(PAGE, texts(rows))
    draw(rows)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, MISSING.path, ["lfm2k", "tiktok"], range(5))
    parser.add("--given", "all", choices=["all", "alone"], help="content that GTC is given")
    parser.add("--rates", [0.4, 0.6])
    parser.add("--conditions", nargs="+", help=f"{' '.join(TRAINED)}, or those of --no-train")
    parser.add("--no-train", False, help="measure filled content alone")
    parser.add("--epochs", type=int, help="largest number, or the settings'")
    parser.start(argv, run, report)


if __name__ == "__main__":
    main()
