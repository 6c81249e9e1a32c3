"""What carries GTC's gain: its parts left out or replaced, one at a time."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ablations_grid import LEFT_OUT, PUBLISHED, SWEPT, VARIANTS, WHOLE
from gtc_pyg.experiment import Settings
from gtc_pyg.transforms import ItemKNNGraph
from harness import Experiment, Options
from harness.data import DATASETS, GRAPHS, load, measured, outcome
from harness.settings import changed, complete, example_settings, to_json

ABLATIONS = Experiment(
    "ablations",
    "dataset* variant* seed* settings val_recall@20 val_ndcg@20 val_ndcg@5 test_recall@20 "
    "test_ndcg@20 test_ndcg@5 best_epoch epochs seconds",
)


def settings_of(variant: str, base: Settings, modalities: Sequence[str] = ()) -> Settings:
    """The settings of a variant."""
    if variant.startswith(LEFT_OUT):
        left_out = variant.removeprefix(LEFT_OUT)
        return replace(base, modalities=[name for name in modalities if name != left_out])
    changes = (VARIANTS | SWEPT)[variant]
    if changes is PUBLISHED:
        return Settings(modalities=base.modalities, **changes)
    return changed(base, changes(complete("gtc", base).model) if callable(changes) else changes)


def is_same(variant: str, base: Settings) -> bool:
    """Whether a variant only says what is so already."""
    if variant == WHOLE or variant.startswith(LEFT_OUT):
        return False
    return complete("gtc", base) == complete("gtc", settings_of(variant, base))


def without(name: str, dataset: str, modalities: Sequence[str]) -> ItemKNNGraph:
    """The set's item graph without one of its modalities."""
    graph = GRAPHS[dataset]
    weights = graph.weights or dict.fromkeys(modalities, 1.0)
    return ItemKNNGraph(graph.k, {m: w for m, w in weights.items() if m != name})


def report(args: Namespace) -> None:
    from ablations_report import write

    write(ABLATIONS.rows(args.out))


def run(args: Namespace) -> None:
    base, dataset = example_settings(args.dataset)["gtc"], load(args.dataset, args.root)
    names = list(dataset.modalities)
    variants = [*SWEPT] if args.sweep else [*VARIANTS, *(LEFT_OUT + name for name in names)]
    chosen = args.variants or [name for name in variants if not is_same(name, base)]
    unknown = [name for name in chosen if name not in variants]
    if unknown:
        raise ValueError(f"unknown variants {unknown}, expected some of {variants}")

    def measure(cell: Mapping[str, Any]) -> dict[str, object]:
        variant, data = cell["variant"], dataset
        if variant.startswith(LEFT_OUT):
            graph = without(variant.removeprefix(LEFT_OUT), args.dataset, names)
            data = load(args.dataset, args.root, graph)
        result = measured("gtc", data, settings_of(variant, base, names), cell["seed"])
        columns = [n for n in ABLATIONS.header if not (args.sweep and n.startswith("test_"))]
        return outcome(result, columns)

    texts = {name: to_json(settings_of(name, base, names)) for name in chosen}
    grid = [
        {"dataset": args.dataset, "variant": name, "seed": seed, "settings": text}
        for seed in ([0] if args.sweep else args.seed)
        for name, text in texts.items()
    ]
    ABLATIONS.run(grid, measure, args.out)


def main(argv: list[str] | None = None) -> None:
    parser = Options(__file__, ABLATIONS.path, DATASETS, range(5))
    parser.add("--variants", nargs="+", metavar="NAME", help="all")
    parser.add("--sweep", False, help="sensitivity, with seed 0")
    parser.start(argv, run, report)


if __name__ == "__main__":
    main()
