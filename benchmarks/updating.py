"""What continuing costs and keeps: Recommender.update beside training anew with everything."""

import tempfile
import time
from argparse import Namespace
from collections.abc import Mapping
from functools import cache
from typing import Any

import pandas as pd
import torch

from gtc_pyg.datasets import InteractionDataset, from_frames
from gtc_pyg.datasets.interaction_tables import SPLITS
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import train
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph
from harness import DOCS, Experiment, Options, fill, markdown, mean, pick
from harness.data import GRAPHS, interactions, load
from harness.settings import example_settings
from harness.stats import Rows

WAYS = ("before", "updated", "anew")
METRICS = ("test_recall@20", "test_ndcg@20", "val_recall@20", "seconds")
UPDATING = Experiment(
    "updating",
    f"dataset* model* share* epochs* patience* seed* "
    f"{' '.join(f'{metric}_{way}' for metric in METRICS for way in WAYS)} "
    f"new_users new_items new_interactions",
)
PAGE = DOCS / "recommend.md"
DATASETS = {"tiktok": "TikTok", "lfm2k": "LFM2k", "baby": "Amazon Baby"}


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
    embeddings = []
    for ids, known, emb in (
        (whole.user_ids, recommender.users, recommender.user_emb),
        (whole.item_ids, recommender.items, recommender.item_emb),
    ):
        found = torch.from_numpy(known.index.get_indexer(ids))
        embeddings.append(emb[found.clamp(min=0)].masked_fill((found < 0).view(-1, 1), 0.0))
    seen, wanted = (interactions(whole, s) for s in ("train", split))
    return evaluate(*embeddings, wanted, [seen], ks=[20])


def run_one(source: InteractionDataset, cell: Mapping[str, Any]) -> dict[str, object]:
    """Trains on what there is before, goes on with everything, and trains anew with everything."""
    settings, graph = example_settings(cell["dataset"])["gtc"], GRAPHS[cell["dataset"]]
    table, seed = table_of(source), cell["seed"]
    part = first_part(table, cell["share"], seed)
    whole = dataset_of(table, source, list(range(source.num_items)), graph)
    before = dataset_of(part, source, sorted(part["item"].unique().tolist()), graph)
    with tempfile.TemporaryDirectory() as folder:
        quiet = {"out": folder, "progress": False}

        def trained(dataset: InteractionDataset) -> Recommender:
            return Recommender(train("gtc", dataset, settings, seed, **quiet).model, dataset)

        clock, recommender = [time.perf_counter()], trained(before)
        clock.append(time.perf_counter())
        later = whole.item_ids.difference(before.item_ids)
        if len(later):
            rows = {m: x[later.to_numpy(copy=True)] for m, x in source.features.items()}
            recommender.add_items(later, rows)
        options = {"epochs": cell["epochs"], "patience": cell["patience"], "seed": seed, **quiet}
        options |= {"lr": settings.lr, "weight_averaging": settings.weight_averaging}
        updated = recommender.update(whole, **options)
        clock.append(time.perf_counter())
        found = dict(zip(WAYS, (recommender, updated, trained(whole)), strict=True))
        clock.append(time.perf_counter())
    row: dict[str, object] = {}
    for way, start, end in zip(WAYS, clock, clock[1:], strict=False):
        metrics, val = rank(found[way], whole), rank(found[way], whole, "val")
        row[f"seconds_{way}"] = f"{end - start:.1f}"
        row[f"val_recall@20_{way}"] = f"{val['Recall@20']:.6f}"
        row[f"test_recall@20_{way}"] = f"{metrics['Recall@20']:.6f}"
        row[f"test_ndcg@20_{way}"] = f"{metrics['NDCG@20']:.6f}"
    row["new_users"] = whole.num_users - before.num_users
    row["new_items"] = whole.num_items - before.num_items
    return row | {"new_interactions": len(table) - len(part)}


def run(args: Namespace) -> None:
    source = cache(lambda: load(args.dataset, args.root, None))
    cell = {"dataset": args.dataset, "model": "gtc", "share": args.share}
    cell |= {"epochs": args.epochs, "patience": args.patience}
    grid = [cell | {"seed": seed} for seed in args.seed]
    UPDATING.run(grid, lambda cell: run_one(source(), cell), args.out)


def report(rows: Rows) -> str:
    """The page's table: means over the seeds."""
    head = ["", "seeds", *WAYS[:2], "trained anew", "updated / anew", "time, of training anew"]
    body = []
    for name, title in DATASETS.items():
        own = pick(rows, dataset=name)
        if not own:
            continue
        means = {way: mean(own, f"test_recall@20_{way}") for way in WAYS}
        each, times = (
            [float(row[f"{of}_updated"]) / float(row[f"{of}_anew"]) for row in own]
            for of in ("test_recall@20", "seconds")
        )
        kept, cost = means["updated"] / means["anew"], sum(times) / len(times)
        cells = [f"{value:.4f}" for value in means.values()]
        cells += [f"{kept:.3f} ({min(each):.3f} to {max(each):.3f})"]
        cells += [f"{cost:.2f} ({min(times):.2f} to {max(times):.2f})"]
        body.append([title, ", ".join(sorted(row["seed"] for row in own)), *cells])
    return markdown(head, body, "---|")


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, UPDATING.path, DATASETS, [0])
    parser.add("--share", 0.05, help="kept back")
    parser.add("--epochs", 10, help="of the update, at most")
    parser.add("--patience", 3, help="of the update")
    parser.start(argv, run, lambda args: fill(PAGE, {"updating": report(UPDATING.rows(args.out))}))


if __name__ == "__main__":
    main()
