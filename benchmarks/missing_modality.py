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
    fill      gtc_pyg.models.modality_filler.ModalityFiller
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
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.stats import ttest_1samp
from torch import Tensor
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from gtc_pyg.datasets import LFM2k, TikTok
from gtc_pyg.experiment import _commit, _versions, train
from gtc_pyg.functional import principal_axes, ridge_predictions, spectral_items
from gtc_pyg.models import ModalityFiller
from gtc_pyg.transforms import ItemKNNGraph

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.rows import append_rows, between, read_rows, write_text

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "benchmarks" / "results" / "missing_modality.csv"
PAGE = ROOT / "docs" / "missing_modality.md"
PLOT = ROOT / "docs" / "images" / "missing_modality.png"
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
DATASETS = {"lfm2k": (LFM2k, "text"), "tiktok": (TikTok, "image")}
TRAINED = ["complete", "zero", "mean", "fill"]
MEASURED = ["mean", "neighbors", "others", "ridge", "fill"]


def present_rows(num_items: int, rate: float, seed: int) -> Tensor:
    """Which items keep the modality: all but ``round(rate * num_items)`` drawn by the seed."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(num_items, dtype=torch.bool)
    mask[torch.randperm(num_items, generator=generator)[: round(rate * num_items)]] = False
    return mask


def fill_content(
    condition: str,
    features: dict[str, Tensor],
    modality: str,
    mask: Tensor,
    edge_index: Tensor,
    num_users: int,
    seed: int,
    epochs: int = 200,
) -> Tensor:
    """The modality with its absent rows filled; what they hold is not looked at."""
    x = torch.where(mask.view(-1, 1), features[modality], 0.0)
    others = {name: y for name, y in features.items() if name != modality}
    mean = x[mask].mean(0)
    if condition in ("zero", "learned"):
        return x
    if condition in ("fill", "content"):
        given = {**others, modality: x, f"has_{modality}": mask}
        filler = ModalityFiller(modality, x.size(1))
        filler.fit(given, edge_index, num_users, epochs=epochs, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        return filler(given, edge_index, num_users, num_samples=32, generator=generator)[modality]
    if condition == "mean":
        out = mean.expand_as(x)
    elif condition == "neighbors":
        known = torch.cat([(x - mean) * mask.view(-1, 1), mask.view(-1, 1)], dim=1)
        adj = torch.zeros(num_users, x.size(0))
        adj[edge_index[0], edge_index[1]] = 1
        adj = adj / (adj.sum(1, keepdim=True) * adj.sum(0)).sqrt().clamp(min=1)
        total = adj.t() @ (adj @ known)
        out = mean + total[:, :-1] / total[:, -1:].clamp(min=1e-9)
    elif condition == "ridge":
        out = ridge_predictions(spectral_items(edge_index, num_users, x.size(0), 64), x, mask)
    elif condition == "others":
        unit = [
            F.normalize((y - y.mean(0)) @ principal_axes(y, 64).t(), dim=1) for y in others.values()
        ]
        out = ridge_predictions(torch.cat(unit, dim=1), x, mask)
    else:
        raise ValueError(f"unknown condition {condition!r}")
    return torch.where(mask.view(-1, 1), x, out)


def quality(filled: Tensor, true: Tensor, mask: Tensor, k: int = 10) -> tuple[float, float]:
    """Mean cosine of filled and true rows around the mean, and the share of true neighbours kept.

    Both over the removed rows; neighbours are the ``k - 1`` of largest cosine with an item.
    """
    mean, absent = true[mask].mean(0), ~mask
    cosine = F.cosine_similarity(filled[absent] - mean, true[absent] - mean).mean()
    near = []
    for x in (filled, true):
        unit = F.normalize(x, dim=1)
        similarity = unit[absent] @ unit.t()
        similarity[torch.arange(int(absent.sum())), absent.nonzero().view(-1)] = -2.0
        near.append(similarity.topk(k - 1, dim=1).indices)
    both = (near[0].unsqueeze(2) == near[1].unsqueeze(1)).any(dim=2)
    return float(cosine), float(both.float().mean())


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
    cls, modality = DATASETS[args.dataset]
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
                shared = [args.dataset, DATASETS[args.dataset][1], given]
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


def losses(
    rows: list[dict[str, str]], metric: str = "test_recall@20", **group: object
) -> dict[str, list[float]]:
    """Condition to metric of each seed, over the seeds that all trained conditions share.

    Args:
        rows: As :func:`read_rows` gives them.
        metric: A column.
        **group: ``dataset``, ``given`` and ``rate``.
    """
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        wanted = dict(group, rate="0.0") if row["condition"] == "complete" else group
        if row[metric] and all(row[key] == str(value) for key, value in wanted.items()):
            seeds = found.setdefault(row["condition"], {})
            if int(row["seed"]) in seeds:
                raise ValueError(f"seed {row['seed']} stands twice for {row['condition']} {wanted}")
            seeds[int(row["seed"])] = float(row[metric])
    if any(name not in found for name in TRAINED):
        return {}
    shared = sorted(set.intersection(*(set(found[name]) for name in TRAINED)))
    return {
        name: [found[name][seed] for seed in shared]
        for name in found
        if shared and set(shared) <= set(found[name])
    }


def half_test(table: dict[str, list[float]], baseline: str) -> tuple[float, float]:
    """The share of the baseline's loss that ``fill`` loses, and p of "it is less than half".

    The share is that of the means. p is of a one-sided t-test over seeds on
    ``loss(fill) - loss(baseline) / 2``; not a number with one seed.
    """
    lost = {
        name: [full - value for full, value in zip(table["complete"], table[name], strict=True)]
        for name in ("fill", baseline)
    }
    share = statistics.fmean(lost["fill"]) / statistics.fmean(lost[baseline])
    excess = [fill - base / 2 for fill, base in zip(*lost.values(), strict=True)]
    if len(excess) < 2:
        return share, float("nan")
    return share, float(ttest_1samp(excess, 0.0, alternative="less").pvalue)


def recall_table(rows: list[dict[str, str]]) -> str:
    """Test Recall@20 by dataset, content given and rate, and what a fill keeps."""
    head = ["content of GTC", "removed", "in its place", "Recall@20", "lost", "fill loses"]
    lines = []
    for dataset, (_, modality) in DATASETS.items():
        body = []
        for given in ("all", "alone"):
            for rate in sorted({row["rate"] for row in rows} - {"0.0"}):
                table = losses(rows, dataset=dataset, given=given, rate=rate)
                if not table:
                    continue
                full = statistics.fmean(table["complete"])
                shown = "all" if given == "all" else f"{modality} alone"
                for name, values in table.items():
                    share = ""
                    if name in ("zero", "mean", "learned", "ridge"):
                        share = "nothing is lost"
                    if share and full > statistics.fmean(values):
                        kept, p = half_test(table, name)
                        share = f"{kept:.2f} of it" + ("" if p != p else f" (p = {p:.3f})")
                    cells = [shown, f"{float(rate):.0%}", name, _spread(values)]
                    body.append(_row([*cells, f"{full - statistics.fmean(values):.4f}", share]))
                body.append(_row([f"seeds: {len(table['complete'])}", *[""] * 5]))
        if body:
            lines += [f"**{dataset}, {modality}**", "", _row(head), _row(["---"] * 6), *body, ""]
    return "\n".join(lines).rstrip()


def content_table(rows: list[dict[str, str]]) -> str:
    """How near filled content comes to the removed one, over the seeds that all fills share."""
    head = ["", "removed", *MEASURED]
    lines = []
    for dataset, (_, modality) in DATASETS.items():
        for rate in sorted({row["rate"] for row in rows} - {"0.0"}):
            key = [dataset, modality, "content only", rate]
            found = {
                name: {r["seed"]: r for r in rows if [r[k] for k in KEY[:5]] == [*key, name]}
                for name in MEASURED
            }
            seeds = sorted(set.intersection(*(set(of_seed) for of_seed in found.values())))
            if seeds:
                count = f"{len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"
                for label, metric in (("cosine", "cosine"), ("neighbours", "overlap")):
                    cells = [
                        _spread([float(found[name][seed][metric]) for seed in seeds], 3)
                        for name in MEASURED
                    ]
                    shown = f"{dataset}, {modality} ({count}): {label}"
                    lines.append(_row([shown, f"{float(rate):.0%}", *cells]))
    return "\n".join([_row(head), _row(["---"] * len(head)), *lines])


def _spread(values: list[float], digits: int = 4) -> str:
    if not values:
        return ""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def with_tables(page: str, rows: list[dict[str, str]]) -> str:
    """The page with both tables between their marks."""
    for name, table in (("recall", recall_table(rows)), ("content", content_table(rows))):
        page = between(page, name, table)
    return page


def draw(rows: list[dict[str, str]], path: Path = PLOT) -> None:
    """Recall@20 against the share that was removed, a line for each fill."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = {
        ("lfm2k", "all"): "LFM2k, text removed; GTC has all content",
        ("lfm2k", "alone"): "LFM2k, text removed; GTC has text alone",
        ("tiktok", "all"): "TikTok, image removed; GTC has all content",
        ("tiktok", "alone"): "TikTok, image removed; GTC has image alone",
    }
    colors = {"zero": "tab:gray", "mean": "tab:orange", "fill": "tab:blue"}
    tables: dict[tuple[str, str], dict[float, dict[str, list[float]]]] = {}
    for dataset, given in titles:
        for rate in sorted({row["rate"] for row in rows} - {"0.0"}):
            table = losses(rows, dataset=dataset, given=given, rate=rate)
            if table:
                tables.setdefault((dataset, given), {})[float(rate)] = table
    if not tables:
        raise ValueError("no rows of all trained conditions for any seed: nothing to draw")
    figure, axes = plt.subplots(
        1, len(tables), figsize=(4.6 * len(tables), 3.6), squeeze=False, layout="constrained"
    )
    for axis, (key, by_rate) in zip(axes[0], tables.items(), strict=True):
        for name, color in colors.items():
            points = {0.0: next(iter(by_rate.values()))["complete"]}
            points |= {rate: table[name] for rate, table in by_rate.items()}
            mean = [statistics.fmean(values) for values in points.values()]
            axis.plot([100 * rate for rate in points], mean, color=color, label=name)
            for rate, values in points.items():
                axis.scatter([100 * rate] * len(values), values, s=10, color=color, alpha=0.6)
        axis.set(title=titles[key], xlabel="items without the modality (%)")
        axis.title.set_fontsize(10)
        axis.set_ylabel("test Recall@20")
        axis.grid(alpha=0.3)
        axis.legend(title="in its place")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


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
    args = parser.parse_args(argv)
    args.root = args.root or f"data/{args.dataset}"
    return args


if __name__ == "__main__":
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.report:
        rows = read_rows(args.out)
        write_text(PAGE, with_tables(PAGE.read_text(), rows))
        draw(rows)
    else:
        run(args)
