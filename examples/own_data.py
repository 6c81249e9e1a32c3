"""From a CSV of your own to recommendations: reads the tables, trains GTC, prints lists.

    python examples/own_data.py                       # makes a small shop of its own first
    python examples/own_data.py --csv ratings.csv --user customer --item sku --rating stars \\
        --min-rating 4 --items catalogue.csv --features text=text.npy --features image=image.csv

Three kinds of files go in:
  --csv       one row per interaction: a user's id, an item's id and, if you like, rating and time
  --items     one row per item: its id and anything to show beside it, such as a title
  --features  content of the items, NAME=FILE, as often as there are modalities. FILE.npy is an
              array [n, width] with the rows of --items; FILE.csv has a column of item ids and one
              column per dimension, and may leave out items that lack the content

Ids are read as text, so that 007 stays 007. --save keeps what `Recommender.load(DIR)` reads. What
is wrong with files or options is said in one line (`python -X dev` shows where).
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from gtc_pyg.datasets import InteractionDataset, PlantedPreferences, from_frames, read_table
from gtc_pyg.datasets.raw_files import read_npy
from gtc_pyg.experiment import Settings, default_graph, one_line_errors, train
from gtc_pyg.recommend import Recommender


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--csv", type=Path, help="interactions (default: a small shop, made on the spot)")
    add("--items", type=Path, help="table of the items; needed for FILE.npy")
    add("--features", action="append", default=[], metavar="NAME=FILE", help="content, see above")
    add("--user", default="user", help="column of users' ids (default: user)")
    add("--item", default="item", help="column of items' ids (default: item)")
    add("--rating", help="column of ratings, with --min-rating")
    add("--min-rating", type=float, help="least rating that is an interaction")
    add("--time", help="column of times, numbers or dates")
    add("--time-format", default="ISO8601", help="such as %%d.%%m.%%Y (default: 2025-01-31's)")
    add("--split", default="random", help="random, leave_last_out or global_time")
    add("--k-core", type=int, default=0, help="least interactions of a user and an item")
    add("--for", nargs="*", dest="users", help="users to recommend for (default: the first three)")
    add("--k", type=int, default=5, help="length of the lists (default: 5)")
    epochs, lr = Settings.epochs, Settings.lr
    add("--epochs", type=int, default=epochs, help=f"largest number (default: {epochs})")
    add("--lr", type=float, default=lr, help=f"learning rate (default: {lr})")
    add("--seed", type=int, default=0, help="seeds split and training (default: 0)")
    add("--logs", type=Path, default=Path("outputs"), help="checkpoints, logs and the small shop")
    add("--save", type=Path, help="folder for the trained recommender")
    add("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def make_shop(folder: Path) -> None:
    """Writes interactions.csv, items.csv, text.npy and image.csv (which lacks every tenth item)."""
    folder.mkdir(parents=True, exist_ok=True)
    shop = PlantedPreferences(num_users=300, num_items=200, modalities=["text", "image"], seed=0)
    views = [shop.view(split) for split in ("train", "val", "test")]
    edges = [view["user", "rates", "item"].edge_label_index for view in views]
    user, item = torch.cat(edges, dim=1).numpy()
    rng = np.random.default_rng(0)
    stars, day = rng.integers(3, 6, user.size), rng.permutation(user.size) // 20
    skus = np.array([f"sku-{i:03}" for i in range(200)])
    time = pd.Timestamp("2025-01-01") + pd.to_timedelta(day, unit="D")
    log = {"user": [f"u{u:03}" for u in user], "item": skus[item], "rating": stars, "time": time}
    pd.DataFrame(log).to_csv(folder / "interactions.csv", index=False)
    catalogue = {"item": skus, "title": [f"Thing no. {i}" for i in range(200)]}
    pd.DataFrame(catalogue).to_csv(folder / "items.csv", index=False)
    np.save(folder / "text.npy", shop.features["text"].numpy())
    image = pd.DataFrame(shop.features["image"].numpy(), index=pd.Index(skus, name="item"))
    image[np.arange(200) % 10 > 0].to_csv(folder / "image.csv")


def load(args: argparse.Namespace) -> InteractionDataset:
    log = read_table(args.csv, [args.user, args.item], args.time, args.time_format)
    items = None if args.items is None else read_table(args.items, [args.item])
    features = {}
    for name, _, file in (option.partition("=") for option in args.features):
        if not file:
            raise ValueError(f"--features must be NAME=FILE, like text=text.npy (got {name!r})")
        features[name] = read_npy(file) if file.endswith(".npy") else read_table(file, [args.item])
    names = ("split", "user", "item", "rating", "min_rating", "time", "k_core", "seed")
    chosen = {name: getattr(args, name) for name in names}
    return from_frames(log, items, features, **chosen, pre_transform=default_graph(list(features)))


def main(args: argparse.Namespace) -> None:
    if args.csv is None:
        make_shop(folder := args.logs / "own_data")
        args.csv, args.items = folder / "interactions.csv", folder / "items.csv"
        args.features = [f"text={folder / 'text.npy'}", f"image={folder / 'image.csv'}"]
        args.user, args.item, args.time = "user", "item", "time"
    dataset = load(args)
    print(f"{dataset.num_users} users and {dataset.num_items} items are left")
    wanted = args.users or dataset.user_ids[:3].tolist()
    if unknown := [user for user in wanted if user not in dataset.user_ids]:
        raise ValueError(f"--for: {unknown} are not among the users that are left")
    options = {"lr": args.lr, "epochs": args.epochs, "seed": args.seed, "out": args.logs}
    options |= {"name": "own_data", "progress": not args.quiet}
    result = train("gtc", dataset, Settings(), **options)
    print(f"test Recall@20 {result.test['Recall@20']:.4f}, best epoch {result.best_epoch}\n")
    recommender = Recommender(result.model, dataset)
    if args.save is not None:
        print(f"saved in {recommender.save(args.save)}\n")
    titles = recommender.describe().set_index("item")
    print(recommender.recommend(wanted, args.k).join(titles, on="item").to_string(index=False))


if __name__ == "__main__":
    with one_line_errors():
        main(parse_args())
