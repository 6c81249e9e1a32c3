"""How well users who came after training are served, beside a model trained with them.

    python benchmarks/fold_in.py --root data/tiktok
    python benchmarks/fold_in.py --root data/lfm2k --dataset lfm2k --models gtc lightgcn
    python benchmarks/fold_in.py --report                  # fills the table of docs/new_users.md

A share of the users, drawn by the seed, is left out of training with all of their interactions. The
others train a model with the settings of the example script. Those left out are then embedded from
their training interactions by GraphRecommender.user_embedder, and ranked on their test items
(training items are no candidates). Beside it stands what the same users get otherwise:

    folded   GraphRecommender.user_embedder
    zero     the same, but the ID embedding of a new user is zero instead of predicted
    popular  items by their number of training interactions
    trained  a model that was trained with everybody, these users too
    as_new   the same, but these users are embedded as if they were new

A row for each dataset, model and seed is appended to --out; runs whose row is there are skipped, so
an interrupted command can be repeated. With --weights trained models are kept in that folder, and
taken from there the next time. Times are of one call, the median of 20, for one user and for 1,000
(those left out, again and again where they are fewer), and of making the embedder.
"""

import runpy
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset, LFM2k, MMRecFolder, TikTok
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import MODELS, NAMES, _commit, _versions, build_model, train
from gtc_pyg.models import GraphRecommender
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, markdown, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "fold_in.csv"
PAGE = ROOT / "docs" / "new_users.md"
WAYS = ("folded", "zero", "popular", "trained", "as_new")
HEADER = [
    "dataset",
    "model",
    "seed",
    "share",
    "users",
    "users_tested",
    *(f"test_recall@20_{way}" for way in WAYS),
    *(f"test_ndcg@20_{way}" for way in WAYS),
    *(f"val_recall@20_{way}" for way in WAYS),
    "ms_to_make",
    "ms_1_user",
    "ms_1000_users",
    "best_epoch",
    "best_epoch_trained",
    "seconds",
    "commit",
    "versions",
]
KEY = HEADER[:4]
DATASETS = {"tiktok": "TikTok", "lfm2k": "LFM2k", "baby": "Amazon Baby"}


def load(name: str, root: str) -> InteractionDataset:
    """A dataset as its example script has it."""
    if name == "baby":
        graph = ItemKNNGraph(k=10, weights={"image": 0.1, "text": 0.9})
        return MMRecFolder(root, "baby", pre_transform=graph)
    return {"tiktok": TikTok, "lfm2k": LFM2k}[name](root, pre_transform=ItemKNNGraph(k=10))


def interactions(dataset: InteractionDataset, split: str) -> Tensor:
    """Those of a split, ``[2, E]``."""
    return dataset.view(split)["user", "rates", "item"].edge_label_index


def draw_users(dataset: InteractionDataset, share: float, seed: int) -> Tensor:
    """A share of all users, drawn among those with training interactions, ascending."""
    known = interactions(dataset, "train")[0].unique()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randperm(known.numel(), generator=generator)
    return known[drawn[: round(share * dataset.num_users)]].sort().values


def of_users(edge_index: Tensor, users: Tensor, num_users: int) -> Tensor:
    """The interactions of some users, who are counted anew in the order given."""
    position = torch.full((num_users,), -1)
    position[users] = torch.arange(users.numel())
    kept = position[edge_index[0]] >= 0
    return torch.stack([position[edge_index[0, kept]], edge_index[1, kept]])


class SomeUsers(InteractionDataset):
    """A dataset with some of its users, in memory; its items, content and graphs are all there."""

    def __init__(self, source: InteractionDataset, users: Tensor) -> None:
        self.source, self.users = source, users
        super().__init__(transform=source.transform, pre_transform=source.pre_transform)

    def build(self) -> InteractionTables:
        source, num_users = self.source, self.source.num_users
        data, graphs = source[0], {}
        for name in source.modalities:
            key = ("item", f"similar_{name}", "item")
            if key in data.edge_types:
                store = data[key]
                graphs[name] = store.edge_index, store.edge_weight, source.num_items
        splits = {s: of_users(interactions(source, s), self.users, num_users) for s in SPLITS}
        return InteractionTables(
            splits,
            self.users.numel(),
            source.features,
            graphs=graphs,
            graph_derived=source.graph_derived,
            untrained_users=True,
        )


def trained(
    name: str, model_name: str, dataset: InteractionDataset, seed: int, kept: Path | None, who: str
) -> tuple[GraphRecommender, int]:
    """A model trained on a dataset, or as it was kept, and its best epoch."""
    chosen = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["SETTINGS"][model_name]
    path = None if kept is None else kept / f"{name}-{model_name}-{seed}-{who}.pt"
    if path is not None and path.exists():
        state = torch.load(path, weights_only=True)
        model = build_model(model_name, dataset, chosen.modalities, **chosen.model)
        model.load_state_dict(state["weights"])
        return model.eval(), state["best_epoch"]
    with tempfile.TemporaryDirectory() as folder:
        result = train(model_name, dataset, chosen, seed, out=folder, progress=False)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"weights": result.model.state_dict(), "best_epoch": result.best_epoch}
        torch.save(state, path)
    return result.model.eval(), result.best_epoch


def graph_of(dataset: InteractionDataset) -> tuple[dict, dict]:
    """What a model is given beside the content."""
    data, similar = dataset[0], ("item", "similar", "item")
    return data.edge_index_dict, {similar: data[similar].edge_weight}


def milliseconds(call: Callable[[], object], repeats: int = 20) -> float:
    """Median time of a call, after one that does not count."""
    call()
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return 1000 * statistics.median(taken)


def repeated(edge_index: Tensor, num_users: int, times: int) -> Tensor:
    """Interactions of ``times`` users, who are the given ones again and again."""
    rounds = range(0, times, num_users)
    out = torch.cat([edge_index + torch.tensor([[first], [0]]) for first in rounds], dim=1)
    return out[:, out[0] < times]


@torch.no_grad()
def embed(model: GraphRecommender, dataset: InteractionDataset) -> tuple[Tensor, Tensor]:
    """Users and items, as the model has them."""
    return model(dataset.features, *graph_of(dataset))


def run_one(
    dataset: InteractionDataset, model_name: str, seed: int, args: Namespace
) -> dict[str, object]:
    """Trains without some users and with everybody, and ranks for these users."""
    start, name = time.perf_counter(), args.dataset
    users = draw_users(dataset, args.share, seed)
    others = torch.ones(dataset.num_users, dtype=torch.bool)
    others[users] = False
    rest = SomeUsers(dataset, others.nonzero().view(-1))
    new = {s: of_users(interactions(dataset, s), users, dataset.num_users) for s in SPLITS}
    given, num = new["train"], users.numel()
    who = f"without-{args.share}"
    model, epoch = trained(name, model_name, rest, seed, args.weights, who)
    embedder = model.user_embedder(rest.features, *graph_of(rest))
    item_emb = embed(model, rest)[1]
    whole, epoch_trained = trained(name, model_name, dataset, seed, args.weights, "everybody")
    user_emb, items_trained = embed(whole, dataset)
    as_new = whole.user_embedder(dataset.features, *graph_of(dataset))(given, num)
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
            row[f"{split}_recall@20_{way}"] = f"{found['Recall@20']:.6f}"
            if split == "test":
                row[f"test_ndcg@20_{way}"] = f"{found['NDCG@20']:.6f}"
    one, many = given[:, given[0] == 0], repeated(given, num, 1000)
    calls = {
        "ms_to_make": lambda: model.user_embedder(rest.features, *graph_of(rest)),
        "ms_1_user": lambda: embedder(one, 1),
        "ms_1000_users": lambda: embedder(many, 1000),
    }
    row |= {key: f"{milliseconds(call):.2f}" for key, call in calls.items()}
    row |= {"best_epoch": epoch, "best_epoch_trained": epoch_trained}
    return row | {"seconds": f"{time.perf_counter() - start:.0f}"}


def run(args: Namespace) -> None:
    """All runs that have no row yet, seed by seed."""
    dataset = None
    for seed in args.seed:
        for model_name in args.models:
            values = [args.dataset, model_name, seed, args.share]
            row: dict[str, object] = dict(zip(KEY, values, strict=True))
            done = [[old[key] for key in KEY] for old in read_rows(args.out)]
            if [str(value) for value in values] in done:
                continue
            dataset = dataset or load(args.dataset, args.root)
            row |= run_one(dataset, model_name, seed, args)
            row |= {"commit": _commit(), "versions": _versions()}
            append_rows(args.out, HEADER, [row])
            shown = [f"{way} {row[f'test_recall@20_{way}']}" for way in WAYS]
            print(f"{args.dataset}, {model_name}, seed {seed}: {', '.join(shown)}", file=sys.stderr)


def groups(rows: list[dict[str, str]]) -> dict[tuple[str, str, str], list[dict[str, str]]]:
    """Dataset, model and share to the rows of its seeds."""
    found: dict[tuple[str, str, str], list[dict[str, str]]] = {}
    for name in DATASETS:
        for model_name in MODELS:
            for row in rows:
                if (row["dataset"], row["model"]) == (name, model_name):
                    found.setdefault((name, model_name, row["share"]), []).append(row)
    return found


def mean(rows: list[dict[str, str]], column: str) -> float:
    """Of a column."""
    return statistics.fmean(float(row[column]) for row in rows)


def kept(rows: list[dict[str, str]], metric: str = "test_recall@20") -> float:
    """What users who are folded in have of what a model trained with them gives."""
    return mean(rows, f"{metric}_folded") / mean(rows, f"{metric}_trained")


def table(rows: list[dict[str, str]]) -> str:
    """Recall@20 and times, means over the seeds."""
    head = ["", "seeds", "users", "popular", "$e_u = 0$", "folded in", "trained", "of trained"]
    head += ["trained, as if new", "ms, 1 user", "ms, 1,000 users"]
    body = []
    for (name, model_name, _), found in groups(rows).items():
        recall = [
            f"{mean(found, f'test_recall@20_{way}'):.4f}"
            for way in ("popular", "zero", "folded", "trained")
        ]
        tested = f"{mean(found, 'users_tested'):,.0f} of {mean(found, 'users'):,.0f}"
        last = [f"{mean(found, 'test_recall@20_as_new'):.4f}"]
        last += [f"{mean(found, key):.1f}" for key in ("ms_1_user", "ms_1000_users")]
        label = f"{DATASETS[name]}, {NAMES[model_name]}"
        cells = [label, str(len(found)), tested, *recall, f"{kept(found):.0%}", *last]
        body.append(cells)
    return markdown(head, body)


def parse_args(argv: list[str] | None = None) -> Namespace:
    """The options, see the file's docstring."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(DATASETS), default="tiktok")
    parser.add_argument("--root", help="folder with raw/ (default: data/<dataset>)")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=["gtc"])
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--share", type=float, default=0.1, help="of users left out (default: 0.1)")
    parser.add_argument("--weights", type=Path, help="folder of trained models, kept and reused")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--out", type=Path, default=ROWS, help=f"default: {ROWS.name}")
    parser.add_argument("--report", action="store_true", help="fill the page from the rows")
    args = parser.parse_args(argv)
    if not 0 < args.share < 1:
        parser.error(f"--share must lie between 0 and 1 (got {args.share})")
    args.root = args.root or f"data/{args.dataset}"
    return args


def main(argv: list[str] | None = None) -> None:
    """Runs, or reports."""
    args = parse_args(argv)
    if args.report:
        write_text(PAGE, between(PAGE.read_text(), "table", table(read_rows(args.out))))
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    run(args)


if __name__ == "__main__":
    main()
