"""What ``test_processes.py`` runs in one process, and ``torchrun`` in two: OUT, then names."""

import contextlib
import io
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch_geometric.typing import WITH_PYG_LIB, WITH_TORCH_SPARSE

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.distributed import launched, rank, rank_zero_first, world_size
from gtc_pyg.experiment import Settings, build_model, parse_args, run
from gtc_pyg.lightning import InteractionDataModule, RecommenderModule, fit
from gtc_pyg.transforms import ItemKNNGraph

SAMPLED = ("lightgcn-sampled", "gtc-sampled") if WITH_PYG_LIB or WITH_TORCH_SPARSE else ()
FULL = ("lightgcn", "freedom", "gtc")
PLAIN = {"content_filter": {"channels": 8}, "ranking": {"class": "BPR"}, "heads": []}
SETTINGS = {
    "lightgcn": {"hidden_channels": 8},
    "freedom": {"hidden_channels": 8, "edge_dropout": 0.3},
    "gtc": {"edge_dropout": 0.3, **PLAIN},
    "lightgcn-sampled": {"hidden_channels": 8},
    "gtc-sampled": {"edge_dropout": 0.0, **PLAIN},
}
NEIGHBORS = {"lightgcn-sampled": [-1, -1], "gtc-sampled": [4, 3, 3]}


def planted() -> PlantedPreferences:
    return PlantedPreferences(61, 40, seed=1, mean_degree=8.0, transform=ItemKNNGraph(k=5))


def watch(losses: list, users: list, sums: list) -> None:
    """Notes the loss of every step over all processes, who is ranked, and by which weights."""
    step, validate = RecommenderModule.training_step, RecommenderModule.validation_step

    def training_step(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        total = loss.detach().clone()
        if world_size() > 1:
            dist.all_reduce(total)
        losses.append(float(total) / world_size())
        return loss

    def validation_step(self, batch, batch_idx):
        users.append(batch)
        sums.append(float(sum(p.double().sum() for p in self.model.parameters())))
        validate(self, batch, batch_idx)

    RecommenderModule.training_step = training_step
    RecommenderModule.validation_step = validation_step


def train(name: str, dataset: PlantedPreferences, out: Path, *watched: list) -> dict:
    losses, users, sums = watched
    for found in watched:
        found.clear()
    torch.manual_seed(0)
    model = build_model(name.split("-")[0], dataset, **SETTINGS[name])
    epochs = 2 if name == "gtc-sampled" else 9
    options = {"lr": 0.01, "epochs": epochs, "batch_size": 63, "progress": False, "out": out}
    options |= {"weight_averaging": 0.0, "spectral_start": False}
    result = fit(model, dataset, name=name, num_neighbors=NEIGHBORS.get(name), **options)
    return {
        "losses": list(losses),
        "users": torch.cat(users),
        "sums": list(sums),
        "history": result.history,
        "test": result.test,
        "state": result.model.state_dict(),
    }


def refusals(dataset: PlantedPreferences) -> list[str]:
    """What a user is told who asks for the impossible."""
    model, found = build_model("lightgcn", dataset), []
    wrong = [{"trainer_kwargs": {"devices": 3}}, {"trainer_kwargs": {"num_nodes": 2}}]
    for options in wrong if world_size() == 1 else [{"batch_size": 1}, *wrong]:
        try:
            fit(model, dataset, out="never", **options)
        except ValueError as error:
            found.append(str(error))
    return found


def run_all(out: Path) -> None:
    torch.set_num_threads(1)
    own = out / f"rank{rank()}"
    own.mkdir(parents=True)
    with rank_zero_first():
        built = (out / "built").exists()
        if not built:
            (out / "built").touch()
    dataset, watched = planted(), ([], [], [])
    original = RecommenderModule.training_step, RecommenderModule.validation_step
    watch(*watched)
    names = (*FULL, *SAMPLED)
    report = {name: train(name, dataset, own / "runs", *watched) for name in names}
    RecommenderModule.training_step, RecommenderModule.validation_step = original
    refused = refusals(dataset)
    options = f"--models lightgcn --epochs 2 --quiet --logs {own}/runs --out {own}/rows.csv"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        run("planted", dataset, {"lightgcn": Settings()}, parse_args("", argv=options.split()))
    report |= {"found": built, "printed": printed.getvalue(), "refused": refused}
    report["ranked"] = InteractionDataModule(dataset).rankers["val"].users
    torch.save(report, out / f"report{rank()}.pt")


def fail(out: Path) -> None:
    """Process 1 fails in its third step, while the other waits for its gradients."""
    step = RecommenderModule.training_step

    def training_step(self, batch, batch_idx):
        if rank() == 1 and batch_idx == 2:
            raise ArithmeticError("process 1 fails")
        return step(self, batch, batch_idx)

    RecommenderModule.training_step = training_step
    dataset = planted()
    fit(build_model("lightgcn", dataset), dataset, batch_size=63, progress=False, out=out)


if __name__ == "__main__":
    assert launched() and int(os.environ["WORLD_SIZE"]) == 2
    {"run_all": run_all, "fail": fail}[sys.argv[1]](Path(sys.argv[2]))
