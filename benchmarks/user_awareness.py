"""Does the filter find what each user cares about? Planted data with a known answer."""

import runpy
import statistics
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from gtc_pyg import experiment
from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.experiment import Settings
from gtc_pyg.explain import filter_relevance, filter_share, score_share
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph
from harness import DOCS, ROOT, Experiment, Options, column, figure, fill, markdown, pick
from harness.settings import changed
from harness.stats import Rows

AWARENESS = Experiment("user_awareness", "condition* measure modality users seed* auc recall@20")
PAGE = DOCS / "user_awareness.md"
SETTINGS: Settings = runpy.run_path(str(ROOT / "examples" / "quickstart.py"))["USER_AWARE"]
VARIANTS = {
    name: changed(SETTINGS, {"content_filter": {"condition": name}}) for name in ("user", "item")
}
SHOWN = [  # label, condition, measure
    ("relevance of a block, fixed gates", "user", "relevance, fixed gates"),
    ("relevance of a block, all of the input", "user", "relevance, all of the input"),
    ("control: the gate of another user", "user", "relevance, another user's gate"),
    ("condition 'item': alike for all, by construction", "item", "relevance, fixed gates"),
    ("reference: mean raw content of the user's items", "user", "ceiling"),
    ("share of a modality that the user's filter adds", "user", "share, filter's"),
    ("control: the filter of another user", "user", "share, another user's filter"),
    ("condition 'item': nothing, by construction", "item", "share, filter's"),
    ("the filter's weights of the modalities alone", "user", "weights of the modalities"),
    ("share of a modality, erased for everybody", "user", "share, erased"),
    ("the same, condition 'item'", "item", "share, erased"),
]
OF_MODALITIES = {measure for _, _, measure in SHOWN if measure.startswith(("share", "weights"))}


def auc(value: Tensor, truth: Tensor) -> float:
    """Chance that a planted entry of ``value`` [U, B] is larger than another; ties count half."""
    planted = torch.zeros_like(value, dtype=torch.bool).scatter_(1, truth.view(-1, 1), True)
    value = (value / value.mean(dim=0)).round(decimals=5)  # what is equal for all users is a tie
    right, wrong = value[planted], value[~planted]
    return float(mannwhitneyu(right, wrong).statistic) / (right.numel() * wrong.numel())


def measure(
    model: GTC, dataset: PlantedPreferences, inputs: GraphInputs, permutations: int = 20
) -> list[tuple[str, str, str, float]]:
    """Rows (measure, modality, users, AUC)."""
    user, blocks = dataset[0]["user"], dataset.block_slices
    graph, rows = (inputs.edge_index_dict, inputs.edge_weight_dict), []
    whole_graph = model.csr_graph(*graph)
    generator = torch.Generator().manual_seed(0)
    others = [torch.randperm(dataset.num_users, generator=generator) for _ in range(permutations)]

    def fixed(name: str, gate_of: Tensor | None = None) -> Tensor:
        columns = (
            filter_relevance(model, inputs.features, graph[0], name, b, gate_of) for b in blocks
        )
        return torch.stack(list(columns), dim=1)

    @torch.no_grad()
    def whole(name: str) -> Tensor:
        users, items = torch.arange(dataset.num_users).view(-1, 1), torch.arange(dataset.num_items)

        def content(features: dict[str, Tensor]) -> Tensor:
            filtered = model.filter_content(features, *graph)[name]
            return filtered.for_pairs(users, items)

        before, columns = content(inputs.features), []
        for block in blocks:
            x = inputs.features[name].clone()
            x[:, block] = x[:, block].mean(dim=0)
            change = before - content({**inputs.features, name: x})
            columns.append(change.norm(dim=-1).mean(dim=-1).expand(dataset.num_users))
        return torch.stack(columns, dim=1)

    def ceiling(name: str) -> Tensor:
        x = inputs.features[name] - inputs.features[name].mean(dim=0)
        mean = whole_graph.mean_of_items(x)
        return torch.stack([mean[:, block].norm(dim=1) for block in blocks], dim=1)

    for m, name in enumerate(inputs.features):
        truth, prefers = user.preferred_block[:, m], user.preferred_modality == m
        measures: dict[str, list[Tensor]] = {
            "relevance, fixed gates": [fixed(name)],
            "relevance, all of the input": [whole(name)],
            "relevance, another user's gate": [fixed(name, gate_of) for gate_of in others],
            "ceiling": [ceiling(name)],
        }
        for key, values in measures.items():
            for users, chosen in (("preferred", prefers), ("all", torch.ones_like(prefers))):
                mean = statistics.fmean(auc(value[chosen], truth[chosen]) for value in values)
                rows.append((key, name, users, mean))

    def shares(filter_of: Tensor | None = None) -> Tensor:
        found = [
            filter_share(model, inputs.features, graph[0], m, filter_of, graph[1])
            for m in inputs.features
        ]
        return torch.stack(found, dim=1)

    of_others = torch.stack([shares(filter_of) for filter_of in others])
    added = [shares() - of_others.mean(dim=0), *(of_others - of_others.mean(dim=0))]
    # Differences may be negative: relative to their mean over users by subtraction.
    own, *theirs = (auc(1 + x - x.mean(dim=0), user.preferred_modality) for x in added)
    given, more = (model, inputs.features, graph[0]), {"edge_weight_dict": graph[1]}
    erased = [score_share(*given, name, **more) for name in inputs.features]
    filtered = model.filter_content(inputs.features, *graph).values()
    weights = torch.stack([f.weight.detach() for f in filtered], dim=1)
    found = {
        "share, filter's": own,
        "share, another user's filter": statistics.fmean(theirs),
        "share, erased": auc(torch.stack(erased, dim=1), user.preferred_modality),
        "weights of the modalities": auc(weights, user.preferred_modality),
    }
    return [*rows, *((key, "both", "all", value) for key, value in found.items())]


def train(
    condition: str,
    seed: int,
    size: tuple[int, int] = (600, 300),
    epochs: int = 60,
    out: Path = ROOT / "outputs" / "user_awareness",
) -> tuple[GTC, PlantedPreferences, GraphInputs, float]:
    """GTC with a condition, its data, and test Recall@20."""
    dataset = PlantedPreferences(*size, seed=seed, transform=ItemKNNGraph(k=10))
    settings = replace(VARIANTS[condition], epochs=epochs)
    options = {"out": out, "name": f"{condition}-{seed}", "progress": False}
    result = experiment.train("gtc", dataset, settings, seed, **options)
    return result.model, dataset, GraphInputs.from_data(dataset[0]), result.test["Recall@20"]


def run_one(condition: str, seed: int) -> list[dict[str, str]]:
    """The rows of a condition and seed."""
    model, dataset, inputs, recall = train(condition, seed)
    return [
        {"measure": key, "modality": modality, "users": users, "auc": f"{value:.4f}"}
        | {"recall@20": f"{recall:.4f}"}
        for key, modality, users, value in measure(model, dataset, inputs)
    ]


def interval(values: list[float]) -> str:
    """Mean, lowest and highest."""
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(rows: Rows) -> str:
    """A Markdown table: lowest, mean and highest AUC over seeds and modalities."""
    body = []
    for label, condition, measure in SHOWN:
        own = pick(rows, condition=condition, measure=measure)
        of = {users: column(pick(own, users=users), "auc") for users in ("preferred", "all")}
        preferred = "" if measure in OF_MODALITIES else interval(of["preferred"])
        body.append([label, preferred, interval(of["all"])])
    head = ["AUC, mean (lowest to highest)", "preferred modality", "both modalities"]
    return markdown(head, body, "---|")


def plot(rows: Rows, path: Path) -> None:
    """Each seed and modality a point, for each measure."""
    with figure(path, figsize=(7.6, 3.8)) as (_, axis):
        for y, (_, condition, measure) in enumerate(SHOWN):
            users = "all" if measure in OF_MODALITIES else "preferred"
            own = pick(rows, condition=condition, measure=measure, users=users)
            axis.plot(column(own, "auc"), [y] * len(own), "o", alpha=0.6)
        axis.axvline(0.5, color="grey", linestyle=":", label="chance")
        axis.axvline(0.9, color="green", linestyle="--", label="0.9")
        axis.set_yticks(range(len(SHOWN)), [label for label, *_ in SHOWN])
        axis.invert_yaxis()
        axis.set(xlabel="AUC (a point for each seed and modality)", xlim=(0.4, 1.02))
        axis.margins(y=0.12)
        axis.legend(loc="center")


def run(args: Namespace) -> None:
    grid = [{"condition": name, "seed": seed} for name in VARIANTS for seed in args.seed]
    AWARENESS.run(grid, lambda cell: run_one(**cell), args.out)
    rows = AWARENESS.rows(args.out)
    print(table(rows))
    if args.write:
        fill(PAGE, {"table": table(rows)})
    if args.plot:
        plot(rows, args.plot)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, AWARENESS.path, seeds=range(5), threads=None)
    parser.add("--write", False, help="put the table into the page")
    parser.add("--plot", type=Path, help="draw the picture into this file")
    parser.start(argv, run)


if __name__ == "__main__":
    main()
