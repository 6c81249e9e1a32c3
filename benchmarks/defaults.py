"""What the bare models reach with a bare ``fit`` on planted shops of three sizes."""

from argparse import Namespace
from collections.abc import Mapping
from functools import cache
from typing import Any

from gtc_pyg.datasets import InteractionDataset, PlantedPreferences
from gtc_pyg.experiment import NAMES, Settings
from gtc_pyg.transforms import ItemKNNGraph
from harness import Experiment, Options, column, markdown, pick, spread
from harness.data import measured, outcome
from harness.stats import Rows

METRICS = [f"{split}_{metric}" for split in ("val", "test") for metric in ("recall@20", "ndcg@5")]
DEFAULTS = Experiment(
    "defaults", f"users* model* seed* {' '.join(METRICS)} best_epoch epochs seconds"
)
ITEMS = {500: 300, 2_000: 1_000, 20_000: 5_000}  # of a shop with so many users
MODELS = ["spectral", "lightgcn", "freedom", "mgcn", "gtc"]


@cache
def shop(users: int, seed: int) -> InteractionDataset:
    """Planted preferences, whose answer is known."""
    return PlantedPreferences(users, ITEMS[users], seed=seed, transform=ItemKNNGraph(k=10))


def run_one(cell: Mapping[str, Any]) -> dict[str, object]:
    """One model, with no argument said."""
    result = measured(cell["model"], shop(cell["users"], cell["seed"]), Settings(), cell["seed"])
    return outcome(result, DEFAULTS.header)


def run(args: Namespace) -> None:
    grid = [
        {"users": users, "model": model, "seed": seed}
        for users in args.users
        for seed in args.seeds
        for model in args.models
    ]
    DEFAULTS.run(grid, run_one, args.out)


def table(rows: Rows) -> str:
    """Mean and standard deviation over seeds, by users and model."""
    head = ["users", "model", "seeds", *METRICS, "best epoch", "seconds"]
    body = []
    for users, model in dict.fromkeys((row["users"], row["model"]) for row in rows):
        own = pick(rows, users=users, model=model)
        cells = [spread(column(own, metric)) for metric in METRICS]
        cells += [spread(column(own, name), 0) for name in ("best_epoch", "seconds")]
        body.append([f"{int(users):,}", NAMES[model], str(len(own)), *cells])
    return markdown(head, body)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, DEFAULTS.path)
    parser.add("--users", list(ITEMS), choices=list(ITEMS), help="of a shop")
    parser.add("--models", MODELS, choices=MODELS)
    parser.add("--seeds", [0, 1, 2])
    parser.start(argv, run, lambda args: print(table(DEFAULTS.rows(args.out))))


if __name__ == "__main__":
    main()
