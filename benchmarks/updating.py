"""What continuing costs and keeps: Recommender.update beside training anew with everything.

    python benchmarks/updating.py --root data/tiktok
    python benchmarks/updating.py --root data/lfm2k --dataset lfm2k --seed 0 1 2
    python benchmarks/updating.py --report                 # fills the table of docs/recommend.md

Drawn by the seed, a share of the users, of the items and of the other training interactions
(--share of each) is kept back. What is left trains a model with the settings of the example script;
then everything comes: items by add_items, users and interactions by update, with the same learning
rate and averaging, at most --epochs epochs. The other run trains with everything from the start.
Both are ranked on the whole test split, all training items excluded. Validation stops both, and is
whole in the second training alone.

Content and item graph are those that from_frames makes of the same rows, in both runs. A row for
each dataset and seed is appended to --out; runs whose row is there are skipped.
"""

import runpy
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

import pandas as pd
import torch

from gtc_pyg.datasets import InteractionDataset, LFM2k, MMRecFolder, TikTok, from_frames
from gtc_pyg.datasets.interaction_tables import SPLITS
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import Settings, _commit, _versions, train
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "updating.csv"
PAGE = ROOT / "docs" / "recommend.md"
WAYS = ("before", "updated", "anew")
HEADER = [
    "dataset",
    "model",
    "share",
    "epochs",
    "patience",
    "seed",
    *(f"test_recall@20_{way}" for way in WAYS),
    *(f"test_ndcg@20_{way}" for way in WAYS),
    *(f"val_recall@20_{way}" for way in WAYS),
    "seconds_before",
    "seconds_updated",
    "seconds_anew",
    "new_users",
    "new_items",
    "new_interactions",
    "commit",
    "versions",
]
KEY = HEADER[:6]
DATASETS = {"tiktok": "TikTok", "lfm2k": "LFM2k", "baby": "Amazon Baby"}
WEIGHTS = {"baby": {"image": 0.1, "text": 0.9}}


def load(name: str, root: str) -> InteractionDataset:
    """A dataset as it is published."""
    if name == "baby":
        return MMRecFolder(root, "baby")
    return {"tiktok": TikTok, "lfm2k": LFM2k}[name](root)


def table_of(dataset: InteractionDataset) -> pd.DataFrame:
    """All interactions with their split, of users who have some for training."""
    parts = []
    for split in SPLITS:
        user, item = dataset.view(split)["user", "rates", "item"].edge_label_index.numpy()
        parts.append(pd.DataFrame({"user": user, "item": item, "split": split}))
    table = pd.concat(parts, ignore_index=True)
    return table[table["user"].isin(parts[0]["user"])].reset_index(drop=True)


def first_part(table: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """What is there before: without some users, some items and some training interactions.

    Users who are left without a training interaction are not there either.
    """
    generator = torch.Generator().manual_seed(seed)

    def kept_back(number: int) -> torch.Tensor:
        chosen = torch.randperm(number, generator=generator)[: round(share * number)]
        return torch.zeros(number, dtype=torch.bool).index_fill_(0, chosen, True)

    users, items = (kept_back(int(table[key].max()) + 1) for key in ("user", "item"))
    later = users[torch.tensor(table["user"])] | items[torch.tensor(table["item"])]
    later |= kept_back(len(table)) & torch.from_numpy(
        table["split"].eq("train").to_numpy(copy=True)
    )
    part = table[~later.numpy()]
    trained = part.loc[part["split"] == "train", "user"].unique()
    return part[part["user"].isin(trained)]


def dataset_of(
    table: pd.DataFrame, source: InteractionDataset, items: list[int], graph: ItemKNNGraph
) -> InteractionDataset:
    """Interactions with some of the items, as somebody's own tables."""
    frame = pd.DataFrame({"item": items})
    content = {name: x[items] for name, x in source.features.items()}
    return from_frames(table, frame, content, split_column="split", pre_transform=graph)


def rank(
    recommender: Recommender, whole: InteractionDataset, split: str = "test"
) -> dict[str, float]:
    """Recall and NDCG at 20 of the whole split; who is not known yet has no list."""
    rows = [
        recommender.users.index.get_indexer(whole.user_ids),
        recommender.items.index.get_indexer(whole.item_ids),
    ]
    embeddings = []
    for row, emb in zip(rows, (recommender.user_emb, recommender.item_emb), strict=True):
        found = torch.from_numpy(row)
        embeddings.append(emb[found.clamp(min=0)].masked_fill((found < 0).view(-1, 1), 0.0))
    edges = [whole.view(s)["user", "rates", "item"].edge_label_index for s in ("train", split)]
    return evaluate(*embeddings, edges[1], [edges[0]], ks=[20])


def run_one(source: InteractionDataset, name: str, seed: int, args: Namespace) -> dict[str, object]:
    """Trains on what there is before, goes on with everything, and trains anew with everything."""
    settings: Settings = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["SETTINGS"]["gtc"]
    graph = ItemKNNGraph(k=10, weights=WEIGHTS.get(name))
    table = table_of(source)
    part = first_part(table, args.share, seed)
    whole = dataset_of(table, source, list(range(source.num_items)), graph)
    before = dataset_of(part, source, sorted(part["item"].unique().tolist()), graph)
    seconds, found = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"out": folder, "progress": False}
        start = time.perf_counter()
        recommender = Recommender(train("gtc", before, settings, seed, **quiet).model, before)
        seconds["before"] = time.perf_counter() - start
        found["before"] = recommender
        start = time.perf_counter()
        later = whole.item_ids.difference(before.item_ids)
        if len(later):
            rows = {m: x[later.to_numpy(copy=True)] for m, x in source.features.items()}
            recommender.add_items(later, rows)
        options = {"lr": settings.lr, "weight_averaging": settings.weight_averaging, **quiet}
        updated = recommender.update(
            whole, epochs=args.epochs, patience=args.patience, seed=seed, **options
        )
        seconds["updated"] = time.perf_counter() - start
        found["updated"] = updated
        start = time.perf_counter()
        anew = Recommender(train("gtc", whole, settings, seed, **quiet).model, whole)
        seconds["anew"] = time.perf_counter() - start
        found["anew"] = anew
    row: dict[str, object] = {f"seconds_{way}": f"{value:.1f}" for way, value in seconds.items()}
    for way, trained in found.items():
        metrics = rank(trained, whole)
        row[f"val_recall@20_{way}"] = f"{rank(trained, whole, 'val')['Recall@20']:.6f}"
        row[f"test_recall@20_{way}"] = f"{metrics['Recall@20']:.6f}"
        row[f"test_ndcg@20_{way}"] = f"{metrics['NDCG@20']:.6f}"
    row["new_users"] = whole.num_users - before.num_users
    row["new_items"] = whole.num_items - before.num_items
    return row | {"new_interactions": len(table) - len(part)}


def report(rows: list[dict[str, str]]) -> str:
    """The page's table: means over the seeds."""
    lines = [
        "| | seeds | before | updated | trained anew | updated / anew | time, of training anew |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, title in DATASETS.items():
        of_set = [row for row in rows if row["dataset"] == name]
        if not of_set:
            continue
        mean = {
            way: statistics.fmean(float(row[f"test_recall@20_{way}"]) for row in of_set)
            for way in WAYS
        }
        each = [
            float(row["test_recall@20_updated"]) / float(row["test_recall@20_anew"])
            for row in of_set
        ]
        times = [float(row["seconds_updated"]) / float(row["seconds_anew"]) for row in of_set]
        cells = [f"{mean[way]:.4f}" for way in WAYS]
        cells.append(f"{mean['updated'] / mean['anew']:.3f} ({min(each):.3f} to {max(each):.3f})")
        cells.append(f"{statistics.fmean(times):.2f} ({min(times):.2f} to {max(times):.2f})")
        seeds = ", ".join(sorted(row["seed"] for row in of_set))
        lines.append(f"| {title} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder with raw/")
    parser.add_argument("--dataset", choices=DATASETS, default="tiktok")
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--share", type=float, default=0.05, help="kept back (default: 0.05)")
    parser.add_argument("--epochs", type=int, default=10, help="of the update, at most")
    parser.add_argument("--patience", type=int, default=3, help="of the update")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--report", action="store_true", help="write the page's table, no runs")
    args = parser.parse_args()
    if args.report:
        page = PAGE.read_text()
        write_text(PAGE, between(page, "updating", report(read_rows(args.out))))
        return
    if args.root is None:
        parser.error("--root is needed: the folder with raw/")
    torch.set_num_threads(args.threads)
    source = load(args.dataset, args.root)
    for seed in args.seed:
        key = {"dataset": args.dataset, "model": "gtc", "share": args.share}
        key |= {"epochs": args.epochs, "patience": args.patience, "seed": seed}
        done = [[row[name] for name in KEY] for row in read_rows(args.out)]
        if [str(value) for value in key.values()] in done:
            print(f"{key}: done already", file=sys.stderr)
            continue
        row = key | run_one(source, args.dataset, seed, args)
        append_rows(args.out, HEADER, [row | {"commit": _commit(), "versions": _versions()}])
        print(", ".join(f"{name} {row[name]}" for name in HEADER[:-2]), flush=True)


if __name__ == "__main__":
    main()
