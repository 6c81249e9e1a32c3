"""Items that nobody has touched: what ranks them best, from their content alone."""

from argparse import Namespace
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cold_items_report import PAGE, TESTS, tests, texts
from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.datasets.interaction_tables import SPLITS
from gtc_pyg.functional import normalize_rows
from harness import RESULTS, ROOT, Experiment, Options, fill, read_rows, write_rows
from harness.data import GRAPHS, Part, call_of, interactions, load, trained
from harness.per_user import recall_and_ndcg
from harness.settings import example_settings
from significance import save

COLD = Experiment("cold_items", "dataset* method split* seed* recall@20 ndcg@20 users items labels")
TABLE, USERS = RESULTS / "cold_items_tests.csv", ROOT / "outputs" / "cold_items"
PARTS, K = 5, 20
Score = Callable[[Tensor], Tensor]


def part(num_items: int, index: int) -> Tensor:
    """One of the five parts that the items are dealt into ``[I]`` (bool)."""
    order = torch.randperm(num_items, generator=torch.Generator().manual_seed(2026))
    out = torch.zeros(num_items, dtype=torch.bool)
    out[order.tensor_split(PARTS)[index]] = True
    return out


def case(args: Namespace, seed: int) -> tuple[InteractionDataset, Tensor, dict[str, Tensor]]:
    """What is trained on, its cold items ``[I]`` (bool), and what is to be found by split."""
    if args.dataset == "tiktok":
        dataset = load("tiktok", args.root)
        cold = torch.ones(dataset.num_items, dtype=torch.bool)
        cold[interactions(dataset, "train")[1]] = False
        edges = {split: interactions(dataset, split) for split in ("val", "test")}
        return dataset, cold, {split: edge[:, cold[edge[1]]] for split, edge in edges.items()}
    whole = load(args.dataset, args.root, None)
    cold = part(whole.num_items, 0 if args.choose else seed + 1)
    edge = torch.cat([interactions(whole, split) for split in SPLITS], dim=1)
    labels = {"val" if args.choose else "test": edge[:, cold[edge[1]]]}
    return Part(whole, cold=cold, pre_transform=GRAPHS[args.dataset]), cold, labels


def similar(edges: dict[Any, Tensor], weights: dict[Any, Tensor], known: Tensor) -> Tensor:
    """Item graph ``[I, I]`` with columns of items with interactions alone, rows that sum to 1."""
    key = ("item", "similar", "item")
    (source, target), weight = edges[key], weights[key]
    kept, size = known[source], known.numel()
    total = torch.zeros(size).index_add_(0, target[kept], weight[kept]).clamp(min=1e-12)
    value = weight[kept] / total[target[kept]]
    index = torch.stack([target[kept], source[kept]])
    return torch.sparse_coo_tensor(index, value, (size, size), check_invariants=False).coalesce()


@torch.no_grad()
def score_all(
    args: Namespace, dataset: InteractionDataset, seed: int, items: Tensor
) -> dict[str, Score]:
    """Method to a function that scores ``items`` for users ``[n] -> [n, len(items)]``."""
    found: dict[str, Score] = {}

    def factors(users: Tensor, rows: Tensor) -> Score:
        return lambda user: users[user] @ rows.t()

    edge = interactions(dataset, "train")
    degree = torch.bincount(edge[1], minlength=dataset.num_items)
    known = degree > 0
    for model in ("gtc", "freedom"):
        chosen, name = example_settings(args.dataset)[model], f"{'choose-' * args.choose}{seed}"
        path = args.models / f"{args.dataset}-{model}-{name}.pt"
        network, _ = trained(model, dataset, chosen, seed, path)
        call = call_of(dataset, chosen.modalities)
        user_emb, item_emb = network(*call)
        embedder = network.item_embedder(*call)
        better = factors(user_emb, embedder.replace(item_emb)[items])
        as_it_comes = factors(user_emb, item_emb[items])
        if model == "gtc":
            found |= {"gtc": better, "gtc forward": as_it_comes}
        else:
            found |= {"freedom": as_it_comes, "freedom embedder": better}
            own, graph = network.item_emb.weight, similar(*call[1:], known)
            layers = network.num_layers + 1  # an item that nobody touched gets its own share alone
            smooth = network.csr_graph(*call[1:]).smooth(own * ~known.view(-1, 1))
            others = {"zero": item_emb - own / layers - smooth}
            others |= {"mean": graph @ own, "final": graph @ item_emb}
            found |= {f"freedom {k}": factors(user_emb, emb[items]) for k, emb in others.items()}
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
            of_users.index_select(0, user), rows.t()
        )
    near = (unit["all"][items] @ unit["all"].t()).masked_fill(~known, -torch.inf)
    for k in (1, 5, 10, 20, 50, 100):
        mean = degree[near.topk(min(k, int(known.sum())), dim=1).indices].float().mean(dim=1)
        found[f"popularity {k}"] = lambda user, mean=mean: mean.expand(len(user), -1)
    return found


def values(score: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Recall@20 and NDCG@20 of each user, by scores and labels (bool) of all candidates."""
    top = score.topk(min(K, score.size(1)), dim=1).indices
    return recall_and_ndcg(label.gather(1, top), label.sum(dim=1))


def chance(label: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`values` are on average over all orders of the candidates."""
    degree, num = label.sum(dim=1), label.size(1)
    return recall_and_ndcg((degree.double() / num).view(-1, 1).expand(-1, min(K, num)), degree)


def measure(args: Namespace, seed: int) -> list[dict[str, object]]:
    """All methods with one seed: the rows, and the values of the users beside."""
    dataset, cold, labels = case(args, seed)
    items = cold.nonzero().view(-1)
    items = items[torch.randperm(items.numel(), generator=torch.Generator().manual_seed(seed))]
    place = torch.full((dataset.num_items,), -1)
    place[items] = torch.arange(items.numel())
    scores, rows = score_all(args, dataset, seed, items), []
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
        shared = {"split": split, "users": users.numel(), "items": items.numel()}
        for method, (r, n) in found.items():
            means = {"recall@20": f"{r.mean():.6f}", "ndcg@20": f"{n.mean():.6f}"}
            rows.append({**shared, "labels": edge.size(1), "method": method, **means})
    return rows


def run(args: Namespace) -> None:
    if max(args.seed) > PARTS - 2:
        raise ValueError(f"--seed must be at most {PARTS - 2}, a part for each (got {args.seed})")
    split = "val" if args.choose else "test"
    seeds = [0] if args.choose else args.seed
    grid = [{"dataset": args.dataset, "split": split, "seed": seed} for seed in seeds]
    COLD.run(grid, lambda cell: measure(args, cell["seed"]), args.out)


def start(args: Namespace) -> None:
    if args.test:
        write_rows(args.table, TESTS, tests(COLD.rows(args.out), args.users))
    else:
        run(args)


def report(args: Namespace) -> None:
    fill(args.page, texts(COLD.rows(args.out), read_rows(args.table)))


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, COLD.path, ["lfm2k", "baby", "tiktok"], range(3))
    parser.add("--choose", False, help="the part that settings are chosen on")
    parser.add("--models", USERS, help="folder of trained weights")
    parser.add("--users", USERS, help="folder of the users' values")
    parser.add("--test", False, help="compare what is there")
    parser.add("--table", TABLE, help="CSV file of the comparisons")
    parser.add("--page", PAGE, help="the page")
    parser.start(argv, start, report)


if __name__ == "__main__":
    main()
