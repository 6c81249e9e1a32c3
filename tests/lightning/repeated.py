"""What ``test_determinism.py`` runs in two processes: OUT, then a folder of TikTok or nothing."""

import csv
import hashlib
import json
import sys
from pathlib import Path

import torch
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from gtc_pyg.datasets import PlantedPreferences, TikTok
from gtc_pyg.evaluation import evaluate
from gtc_pyg.experiment import Settings, parse_args, run, train
from gtc_pyg.lightning import GraphInputs
from gtc_pyg.recommend import Recommender
from gtc_pyg.transforms import ItemKNNGraph

COSTS = ("seconds_per_epoch", "peak_mib", "commit", "versions")
NEIGHBORS = [5, 3, 3]


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest()[:16]


def settings_of(name: str, sampled: bool) -> Settings:
    model = {} if name == "lightgcn" else {"edge_dropout": 0.0 if sampled else 0.5}
    spectral = name == "gtc"
    averaging = 0.9 if name == "gtc" else 0.0
    options = {"spectral_start": spectral, "weight_averaging": averaging}
    return Settings(epochs=2, lr=0.01, batch_size=2048, model=model, **options)


def once(dataset, name: str, sampled: bool, out: Path) -> dict:
    """What one run gives, and metrics of its weights by threads."""
    more = {"num_neighbors": NEIGHBORS} if sampled else {}
    settings = settings_of(name, sampled)
    result = train(name, dataset, settings, 0, out=out, progress=False, **more)
    model, threads = result.model.eval(), torch.get_num_threads()
    some = dataset.user_ids[:500]
    lists = Recommender(model, dataset).recommend(users=some, k=20)
    inputs = GraphInputs.from_data(dataset[0])
    train_edges, test_edges = (
        dataset.view(split)["user", "rates", "item"].edge_label_index for split in ("train", "test")
    )
    metrics = {}
    for number in (1, 2, 4):
        torch.set_num_threads(number)
        with torch.no_grad():
            tables = model(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict)
        metrics[number] = evaluate(*tables, test_edges, [train_edges])
    torch.set_num_threads(threads)
    return {
        "weights": {key: digest(x) for key, x in result.model.state_dict().items()},
        "history": result.history,
        "test": result.test,
        "lists": hashlib.sha256(lists.to_csv().encode()).hexdigest(),
        "by_threads": metrics,
    }


def main(out: Path, root: str | None) -> None:
    graph = ItemKNNGraph(k=10)
    torch.set_num_threads(1)
    if root is None:
        dataset = PlantedPreferences(300, 200, seed=1, mean_degree=12.0, transform=graph)
    else:
        dataset = TikTok(root, pre_transform=graph)
    report = {}
    graphs = (False, True) if WITH_PYG_LIB or WITH_TORCH_SPARSE else (False,)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for name in ("gtc", "freedom", "lightgcn"):
            for sampled in graphs:
                key = f"{name}, {'mini-batches' if sampled else 'whole graph'}, {threads} threads"
                report[key] = once(dataset, name, sampled, out / key)
                print(key, report[key]["test"]["Recall@20"], file=sys.stderr, flush=True)
        rows = out / f"rows-{threads}.csv"
        options = f"--models lightgcn,freedom --quiet --logs {out} --out {rows}".split()
        chosen = {name: settings_of(name, False) for name in ("lightgcn", "freedom")}
        run("repeated", dataset, chosen, parse_args("", argv=options))
        with rows.open(newline="") as file:
            kept = [{k: row[k] for k in row if k not in COSTS} for row in csv.DictReader(file)]
        report[f"rows, {threads} threads"] = kept
    (out / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
