"""How well users who came after training are served, beside a model trained with them."""

from argparse import Namespace
from functools import cache
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.datasets.interaction_tables import SPLITS
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import MODELS, NAMES
from gtc_pyg.models import GraphRecommender
from harness import DOCS, Experiment, Options, fill, markdown, mean, pick
from harness.data import Part, call_of, embedded, interactions, load, of_users, trained
from harness.settings import example_settings
from harness.stats import Rows
from harness.workers import seconds

WAYS = ("folded", "zero", "popular", "trained", "as_new")
METRICS = ("test_recall@20", "test_ndcg@20", "val_recall@20")
FOLD_IN = Experiment(
    "fold_in",
    f"dataset* model* seed* share* users users_tested "
    f"{' '.join(f'{metric}_{way}' for metric in METRICS for way in WAYS)} "
    f"ms_to_make ms_1_user ms_1000_users best_epoch best_epoch_trained seconds",
)
PAGE = DOCS / "new_users.md"
DATASETS = {"tiktok": "TikTok", "lfm2k": "LFM2k", "baby": "Amazon Baby"}


def draw_users(dataset: InteractionDataset, share: float, seed: int) -> Tensor:
    """A share of all users, drawn among those with training interactions, ascending."""
    known = interactions(dataset, "train")[0].unique()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(known.numel(), generator=generator)
    return known[drawn[: round(share * dataset.num_users)]].sort().values


def repeated(edge_index: Tensor, num_users: int, times: int) -> Tensor:
    """Interactions of ``times`` users, who are the given ones again and again."""
    rounds = range(0, times, num_users)
    out = torch.cat([edge_index + torch.tensor([[first], [0]]) for first in rounds], dim=1)
    return out[:, out[0] < times]


def run_one(
    dataset: InteractionDataset, model_name: str, seed: int, args: Namespace
) -> dict[str, object]:
    """Trains without some users and with everybody, and ranks for these users."""
    users, settings = draw_users(dataset, args.share, seed), example_settings(args.dataset)
    others = torch.ones(dataset.num_users, dtype=torch.bool)
    others[users] = False
    rest = Part(dataset, others.nonzero().view(-1))
    new = {s: of_users(interactions(dataset, s), users, dataset.num_users) for s in SPLITS}
    given, num = new["train"], users.numel()

    def made(data: InteractionDataset, who: str) -> tuple[GraphRecommender, int]:
        name = f"{args.dataset}-{model_name}-{seed}-{who}.pt"
        return trained(
            model_name, data, settings[model_name], seed, args.weights and args.weights / name
        )

    model, epoch = made(rest, f"without-{args.share}")
    embedder, item_emb = model.user_embedder(*call_of(rest)), embedded(model, rest)[1]
    whole, epoch_trained = made(dataset, "everybody")
    user_emb, items_trained = embedded(whole, dataset)
    as_new = whole.user_embedder(*call_of(dataset))(given, num)
    degree = torch.bincount(interactions(rest, "train")[1], minlength=rest.num_items)
    zeros = torch.zeros(num, model.user_emb.embedding_dim)
    ways = {
        "folded": (embedder(given, num), item_emb),
        "zero": (embedder(given, num, zeros), item_emb),
        "popular": (torch.ones(num, 1), degree.float().view(-1, 1)),
        "trained": (user_emb[users], items_trained),
        "as_new": (as_new, items_trained),
    }
    row: dict[str, object] = {"users": num, "users_tested": new["test"][0].unique().numel()}
    for way, embeddings in ways.items():
        for split in ("test", "val"):
            found = evaluate(*embeddings, new[split], [given], ks=[20])
            values = {f"{split}_recall@20": "Recall@20", f"{split}_ndcg@20": "NDCG@20"}
            row |= {f"{m}_{way}": f"{found[k]:.6f}" for m, k in values.items() if m in METRICS}
    one, many = given[:, given[0] == 0], repeated(given, num, 1000)
    calls = {
        "ms_to_make": lambda: model.user_embedder(*call_of(rest)),
        "ms_1_user": lambda: embedder(one, 1),
        "ms_1000_users": lambda: embedder(many, 1000),
    }
    row |= {key: f"{1000 * median(seconds(call, 20, 1)):.2f}" for key, call in calls.items()}
    return row | {"best_epoch": epoch, "best_epoch_trained": epoch_trained}


def run(args: Namespace) -> None:
    if not 0 < args.share < 1:
        raise ValueError(f"--share must lie between 0 and 1 (got {args.share})")
    shared, dataset = {"dataset": args.dataset, "share": args.share}, cache(load)
    grid = [{**shared, "model": model, "seed": seed} for seed in args.seed for model in args.models]

    def measure(cell: dict) -> dict[str, object]:
        return run_one(dataset(args.dataset, args.root), cell["model"], cell["seed"], args)

    FOLD_IN.run(grid, measure, args.out)


def groups(rows: Rows) -> dict[tuple[str, str, str], Rows]:
    """Dataset, model and share to the rows of its seeds."""
    found: dict[tuple[str, str, str], list] = {}
    for name in DATASETS:
        for model in MODELS:
            for row in pick(rows, dataset=name, model=model):
                found.setdefault((name, model, row["share"]), []).append(row)
    return found


def kept(rows: Rows, metric: str = "test_recall@20") -> float:
    """What users who are folded in have of what a model trained with them gives."""
    return mean(rows, f"{metric}_folded") / mean(rows, f"{metric}_trained")


def table(rows: Rows) -> str:
    """Recall@20 and times, means over the seeds."""
    head = ["", "seeds", "users", "popular", "$e_u = 0$", "folded in", "trained", "of trained"]
    head += ["trained, as if new", "ms, 1 user", "ms, 1,000 users"]
    body = []
    for (name, model_name, _), found in groups(rows).items():
        recall = {way: f"{mean(found, f'test_recall@20_{way}'):.4f}" for way in WAYS}
        tested = f"{mean(found, 'users_tested'):,.0f} of {mean(found, 'users'):,.0f}"
        cells = [f"{DATASETS[name]}, {NAMES[model_name]}", str(len(found)), tested]
        cells += [recall[way] for way in ("popular", "zero", "folded", "trained")]
        cells += [f"{kept(found):.0%}", recall["as_new"]]
        cells += [f"{mean(found, key):.1f}" for key in ("ms_1_user", "ms_1000_users")]
        body.append(cells)
    return markdown(head, body)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, FOLD_IN.path, DATASETS, [0], None)
    parser.add("--models", ["gtc"], choices=list(MODELS))
    parser.add("--share", 0.1, help="of users left out")
    parser.add("--weights", type=Path, help="folder of trained models, kept and reused")
    parser.start(argv, run, lambda args: fill(PAGE, {"table": table(FOLD_IN.rows(args.out))}))


if __name__ == "__main__":
    main()
