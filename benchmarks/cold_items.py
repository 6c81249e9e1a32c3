"""Items that nobody has touched: what ranks them best, from their content alone.

    python benchmarks/cold_items.py --dataset lfm2k --root data/lfm2k --choose    # the first part
    python benchmarks/cold_items.py --dataset lfm2k --root data/lfm2k             # seeds 0 1 2
    python benchmarks/cold_items.py --dataset tiktok --root data/tiktok           # its own items
    python benchmarks/cold_items.py --test                                        # p-values
    python benchmarks/cold_items.py --report                                      # the page

The items of LFM2k and Baby are dealt into five parts, once. The items of one part lose all of
their interactions, in every split, and the models are trained with the settings of the example
scripts on what is left. Then each user who had any of these interactions gets a list of the part's
items alone, which are to be found. --choose does so with the first part: what was chosen, was
chosen on it (split val). Seed s takes part s + 1 and seeds the weights (split test). TikTok is
trained as it is, and its items without training interactions are ranked: validation interactions
with them are split val, test interactions split test. Scores that are equal are in random order.

    gtc               GTC and its item_embedder
    gtc forward       GTC as it comes: ID embedding and number of an item that no user has taught
    freedom           FREEDOM as it comes: its item graph, and the item's own untaught embedding
    freedom zero      the same without the item's own embedding
    freedom mean      the mean of FREEDOM's ID embeddings over the similar items with interactions
    freedom final     the mean of its final embeddings over these
    freedom embedder  FREEDOM and its item_embedder
    content NAME      cosine with the mean content of the user's items, content around its mean and
                      at unit length; one modality, or all of them side by side
    graph K           users' items spread over the item graph, K steps; items with interactions only
    popularity K      mean number of interactions of the K items of nearest content (all modalities)
    chance            the expectation, exactly

A method's row is the mean over users. Trained weights are kept in --models and values of the users
in --users; what is there is not made again. --test compares GTC with FREEDOM as it comes, with the
best on split val of each kind (content, graph, freedom, popularity) and with chance: a user's
value is the mean over the seeds in which the user has interactions to find; two-sided Wilcoxon test
over users, Holm's correction over the table (benchmarks/significance.py).
"""

import argparse
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset, LFM2k, MMRecFolder, TikTok
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.experiment import _commit, _versions, build_model, train
from gtc_pyg.functional import normalize_rows
from gtc_pyg.lightning.data_module import GraphInputs
from gtc_pyg.models import GraphRecommender
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.cold_items_report import TESTS, tests, with_tables
from benchmarks.options import dataset_parser, with_root
from benchmarks.rows import append_rows, read_rows, write_rows, write_text
from benchmarks.search import example_settings
from benchmarks.significance import save

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "cold_items.csv"
TABLE = ROOT / "benchmarks" / "results" / "cold_items_tests.csv"
PAGE = ROOT / "docs" / "cold_items.md"
USERS = ROOT / "outputs" / "cold_items"
HEADER = ["dataset", "method", "split", "seed", "recall@20", "ndcg@20", "users", "items", "labels"]
HEADER += ["commit", "versions"]
KEY = HEADER[:4]
GRAPHS = {"baby": {"image": 0.1, "text": 0.9}}
PARTS, K = 5, 20


class ColdSplit(InteractionDataset):
    """Another dataset in which some items have lost all of their interactions.

    Args:
        dataset: The whole.
        cold: The items ``[I]`` (bool).
        pre_transform: As in :class:`InteractionDataset`.
    """

    def __init__(self, dataset: InteractionDataset, cold: Tensor, pre_transform: Any) -> None:
        self.whole, self.cold = dataset, cold
        super().__init__(None, pre_transform=pre_transform)

    def build(self) -> InteractionTables:
        data, graphs = self.whole[0], {}
        for name in self.whole.modalities:
            key = ("item", f"similar_{name}", "item")
            if key in data.edge_types:
                graphs[name] = data[key].edge_index, data[key].edge_weight, self.cold.numel()
        edges = {split: interactions(self.whole, split) for split in SPLITS}
        return InteractionTables(
            splits={split: edge[:, ~self.cold[edge[1]]] for split, edge in edges.items()},
            num_users=self.whole.num_users,
            features=self.whole.features,
            graphs=graphs,
            graph_derived=tuple(self.whole.graph_derived),
            untrained_users=True,
        )


def interactions(dataset: InteractionDataset, split: str) -> Tensor:
    """``[2, E]``."""
    return dataset.view(split)["user", "rates", "item"].edge_label_index


def part(num_items: int, index: int) -> Tensor:
    """One of the five parts that the items are dealt into ``[I]`` (bool)."""
    order = torch.randperm(num_items, generator=torch.Generator().manual_seed(2026))
    out = torch.zeros(num_items, dtype=torch.bool)
    out[order.tensor_split(PARTS)[index]] = True
    return out


def case(args: argparse.Namespace, seed: int) -> tuple[InteractionDataset, dict[str, Tensor], str]:
    """What is trained on, the interactions to be found by split, and a name for the weights."""
    graph = ItemKNNGraph(k=10, weights=GRAPHS.get(args.dataset))
    if args.dataset == "tiktok":
        dataset: InteractionDataset = TikTok(args.root, pre_transform=graph)
        known = torch.zeros(dataset.num_items, dtype=torch.bool)
        known[interactions(dataset, "train")[1]] = True
        edges = {split: interactions(dataset, split) for split in ("val", "test")}
        return dataset, {s: e[:, ~known[e[1]]] for s, e in edges.items()}, str(seed)
    whole = LFM2k(args.root) if args.dataset == "lfm2k" else MMRecFolder(args.root, "baby")
    cold = part(whole.num_items, 0 if args.choose else seed + 1)
    edge = torch.cat([interactions(whole, split) for split in SPLITS], dim=1)
    labels = {"val" if args.choose else "test": edge[:, cold[edge[1]]]}
    return ColdSplit(whole, cold, graph), labels, f"choose-{seed}" if args.choose else str(seed)


def trained(
    args: argparse.Namespace, dataset: InteractionDataset, model: str, seed: int, name: str
) -> tuple[GraphRecommender, GraphInputs]:
    """A model with the weights that are kept, or made now."""
    settings, path = example_settings(args.dataset)[model], args.models / f"{args.dataset}-{model}"
    path = path.with_name(f"{path.name}-{name}.pt")
    if not path.exists():
        with tempfile.TemporaryDirectory() as folder:
            result = train(model, dataset, settings, seed, out=folder, progress=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".part")
        torch.save(result.model.state_dict(), beside)
        os.replace(beside, path)
    network = build_model(model, dataset, settings.modalities, **settings.model).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network, GraphInputs.from_data(dataset[0], settings.modalities)


def similar(inputs: GraphInputs, known: Tensor) -> Tensor:
    """Item graph ``[I, I]`` with columns of items with interactions alone, rows that sum to 1."""
    key = ("item", "similar", "item")
    (source, target), weight = inputs.edge_index_dict[key], inputs.edge_weight_dict[key]
    kept, size = known[source], known.numel()
    total = torch.zeros(size).index_add_(0, target[kept], weight[kept]).clamp(min=1e-12)
    value = weight[kept] / total[target[kept]]
    index = torch.stack([target[kept], source[kept]])
    return torch.sparse_coo_tensor(index, value, (size, size), check_invariants=False).coalesce()


@torch.no_grad()
def score_all(
    args: argparse.Namespace, dataset: InteractionDataset, seed: int, name: str, items: Tensor
) -> dict[str, Any]:
    """Method to a function that scores ``items`` for users ``[n] -> [n, len(items)]``."""
    found: dict[str, Any] = {}

    def factors(users: Tensor, rows: Tensor) -> Any:
        return lambda user: users[user] @ rows.t()

    edge = interactions(dataset, "train")
    degree = torch.bincount(edge[1], minlength=dataset.num_items)
    known = degree > 0
    for model in ("gtc", "freedom"):
        network, inputs = trained(args, dataset, model, seed, name)
        call = inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict
        user_emb, item_emb = network(*call)
        embedder = network.item_embedder(*call)
        better = factors(user_emb, embedder.replace(item_emb)[items])
        as_it_comes = factors(user_emb, item_emb[items])
        if model == "gtc":
            found |= {"gtc": better, "gtc forward": as_it_comes}
        else:
            found |= {"freedom": as_it_comes, "freedom embedder": better}
            own, graph = network.item_emb.weight, similar(inputs, known)
            layers = network.num_layers + 1  # an item that nobody touched gets its own share alone
            zero = (
                item_emb
                - own / layers
                - network.csr_graph(*call[1:]).smooth(own * ~known.view(-1, 1))
            )
            found["freedom zero"] = factors(user_emb, zero[items])
            found["freedom mean"] = factors(user_emb, (graph @ own)[items])
            found["freedom final"] = factors(user_emb, (graph @ item_emb)[items])
    shape = dataset.num_users, dataset.num_items
    of_users = torch.sparse_coo_tensor(edge, torch.ones(edge.size(1)), shape).coalesce()
    unit = {m: normalize_rows(x - x[known].mean(0)) for m, x in dataset.features.items()}
    unit["all"] = torch.cat(list(unit.values()), dim=1)
    for modality, x in unit.items():
        found[f"content {modality}"] = factors(torch.sparse.mm(of_users, x), x[items])
    both = graph + graph.t()
    whole = (both @ torch.ones(dataset.num_items, 1)).clamp(min=1e-12)
    one = (graph.to_dense() * known)[items]
    two = (torch.sparse.mm(both, both.to_dense()) / whole)[items] * known
    for steps, rows in ((1, one), (2, two)):
        found[f"graph {steps}"] = lambda user, rows=rows: torch.sparse.mm(
            rows_of(of_users, user), rows.t()
        )
    near = (unit["all"][items] @ unit["all"].t()).masked_fill(~known, -torch.inf)
    for k in (1, 5, 10, 20, 50, 100):
        mean = degree[near.topk(min(k, int(known.sum())), dim=1).indices].float().mean(dim=1)
        found[f"popularity {k}"] = lambda user, mean=mean: mean.expand(len(user), -1)
    return found


def rows_of(matrix: Tensor, index: Tensor) -> Tensor:
    """Rows of a sparse matrix."""
    return matrix.index_select(0, index)


def values(score: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Recall@20 and NDCG@20 of each user, by scores and labels (bool) of all candidates."""
    top = score.topk(min(K, score.size(1)), dim=1).indices
    hit, degree = label.gather(1, top).double(), label.sum(dim=1)
    discount = 1 / torch.arange(2, top.size(1) + 2, dtype=torch.double).log2()
    ideal = discount.cumsum(0)[degree.clamp(max=top.size(1)) - 1]
    return hit.sum(dim=1) / degree, (hit * discount).sum(dim=1) / ideal


def chance(label: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`values` are on average over all orders of the candidates."""
    degree, num = label.sum(dim=1), label.size(1)
    discount = 1 / torch.arange(2, min(K, num) + 2, dtype=torch.double).log2()
    ideal = discount.cumsum(0)[degree.clamp(max=len(discount)) - 1]
    recall = torch.full((len(label),), min(K, num) / num, dtype=torch.double)
    return recall, degree / num * discount.sum() / ideal


def run_one(args: argparse.Namespace, seed: int) -> None:
    """All methods with one seed: the rows, and the values of the users."""
    dataset, labels, name = case(args, seed)
    known = torch.zeros(dataset.num_items, dtype=torch.bool)
    known[interactions(dataset, "train")[1]] = True
    cold = dataset.cold if isinstance(dataset, ColdSplit) else ~known
    items = cold.nonzero().view(-1)
    items = items[torch.randperm(items.numel(), generator=torch.Generator().manual_seed(seed))]
    place = torch.full((dataset.num_items,), -1)
    place[items] = torch.arange(items.numel())
    scores = score_all(args, dataset, seed, name, items)
    for split, edge in labels.items():
        users, row = edge[0].unique(return_inverse=True)
        label = torch.zeros(users.numel(), items.numel(), dtype=torch.bool)
        label[row, place[edge[1]]] = True
        found = {"chance": chance(label)}
        for method, score in scores.items():
            batches = zip(users.split(2048), label.split(2048), strict=True)
            parts = [values(score(user), some) for user, some in batches]
            found[method] = tuple(torch.cat(x) for x in zip(*parts, strict=True))
        of_users = {method: torch.stack(pair).numpy() for method, pair in found.items()}
        path = args.users / f"{args.dataset}-{split}-{seed}.npz"
        save(path, {"users_of_row": users.numpy(), **of_users})
        shared = {"dataset": args.dataset, "split": split, "seed": seed, "users": users.numel()}
        shared |= {"items": items.numel(), "labels": edge.size(1)}
        shared |= {"commit": _commit(), "versions": _versions()}
        rows = [
            {
                **shared,
                "method": method,
                "recall@20": f"{r.mean():.6f}",
                "ndcg@20": f"{n.mean():.6f}",
            }
            for method, (r, n) in found.items()
        ]
        for row in rows:
            shown = [str(row[key]) for key in (*KEY, "recall@20", "ndcg@20")]
            print(", ".join(shown), file=sys.stderr, flush=True)
        append_rows(args.out, HEADER, rows)


def run(args: argparse.Namespace) -> None:
    """All seeds that have no rows yet."""
    warnings.filterwarnings("ignore", message="Using '.*' without a 'pyg-lib'")
    split = "val" if args.choose else "test"
    for seed in [0] if args.choose else args.seed:
        wanted = [args.dataset, split, str(seed)]
        rows = [[row[key] for key in ("dataset", "split", "seed")] for row in read_rows(args.out)]
        if wanted not in rows:
            run_one(args, seed)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The options, see the file's docstring."""
    parser = dataset_parser(__doc__, ["lfm2k", "baby", "tiktok"], "lfm2k", ROWS)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2], choices=range(4))
    parser.add_argument(
        "--choose", action="store_true", help="the part that settings are chosen on"
    )
    parser.add_argument("--models", type=Path, default=USERS, help="folder of trained weights")
    parser.add_argument("--users", type=Path, default=USERS, help="folder of the users' values")
    parser.add_argument("--test", action="store_true", help="compare what is there")
    parser.add_argument("--table", type=Path, default=TABLE, help="CSV file of the comparisons")
    parser.add_argument("--report", action="store_true", help="put the tables into the page")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page")
    return with_root(parser.parse_args(argv))


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.test:
        write_rows(args.table, TESTS, tests(read_rows(args.out), args.users))
    elif args.report:
        compared = read_rows(args.table)
        write_text(args.page, with_tables(args.page.read_text(), read_rows(args.out), compared))
    else:
        run(args)
