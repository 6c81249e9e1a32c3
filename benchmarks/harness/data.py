"""Data sets as the example scripts have them, parts of them, weights that are kept."""

import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gtc_pyg.datasets import InteractionDataset, LFM2k, MMRecFolder, PlantedPreferences, TikTok
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.experiment import Settings, build_model, train
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender
from gtc_pyg.transforms import ItemKNNGraph

from .rows import lock_of, replaced

Call = tuple[dict[str, Tensor], dict[Any, Tensor], dict[Any, Tensor]]
TITLES = {
    "tiktok": "TikTok",
    "lfm2k": "LFM2k (image: graph-derived features)",
    "baby": "Baby (graph-derived features)",
}
GRAPHS = {
    "tiktok": ItemKNNGraph(k=10),
    "lfm2k": ItemKNNGraph(k=10),
    "baby": ItemKNNGraph(k=10, weights={"image": 0.1, "text": 0.9}),
}
DATASETS: dict[str, Callable[..., InteractionDataset]] = {
    "tiktok": lambda root, graph=GRAPHS["tiktok"]: TikTok(
        root, untrained_users=True, pre_transform=graph
    ),
    "lfm2k": lambda root, graph=GRAPHS["lfm2k"]: LFM2k(root, pre_transform=graph),
    "baby": lambda root, graph=GRAPHS["baby"]: MMRecFolder(root, "baby", pre_transform=graph),
}


def load(name: str, root: str | Path, *graph: Any) -> InteractionDataset:
    """A data set with the item graph of its example script, or another one (``None``: without)."""
    if name == "planted":
        return PlantedPreferences(transform=ItemKNNGraph(k=10))
    with lock_of(Path(root)):  # the first one prepares the data
        return DATASETS[name](root, *graph)


def call_of(dataset: InteractionDataset, modalities: Sequence[str] | None = None) -> Call:
    """What a model is given: content, edges and weights."""
    inputs = GraphInputs.from_data(dataset[0], modalities)
    return inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict


@torch.no_grad()
def embedded(
    model: GraphRecommender, dataset: InteractionDataset, modalities: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Users and items, as the model has them."""
    return model(*call_of(dataset, modalities))


def interactions(dataset: InteractionDataset, split: str) -> Tensor:
    """Those of a split, ``[2, E]``."""
    return dataset.view(split)["user", "rates", "item"].edge_label_index


def of_users(edge_index: Tensor, users: Tensor, num_users: int) -> Tensor:
    """The interactions of some users, who are counted anew in the order given."""
    position = torch.full((num_users,), -1)
    position[users] = torch.arange(users.numel())
    kept = position[edge_index[0]] >= 0
    return torch.stack([position[edge_index[0, kept]], edge_index[1, kept]])


class Part(InteractionDataset):
    """Another dataset, in memory, with some of its users, or some of its items' interactions.

    Args:
        whole: The dataset; its items, content and graphs are all there.
        users: Who is left, counted anew; everybody by default.
        cold: Items ``[I]`` (bool) that lose their interactions in every split.
        pre_transform: That of the whole by default.
    """

    def __init__(
        self,
        whole: InteractionDataset,
        users: Tensor | None = None,
        cold: Tensor | None = None,
        pre_transform: Any = None,
    ) -> None:
        self.whole, self.cold = whole, torch.zeros(whole.num_items).bool() if cold is None else cold
        self.users = torch.arange(whole.num_users) if users is None else users
        transform = whole.pre_transform if pre_transform is None else pre_transform
        super().__init__(transform=whole.transform, pre_transform=transform)

    def build(self) -> InteractionTables:
        whole, graphs = self.whole, {}
        for name in whole.modalities:
            key = ("item", f"similar_{name}", "item")
            if key in whole[0].edge_types:
                store = whole[0][key]
                graphs[name] = store.edge_index, store.edge_weight, whole.num_items
        edges = {s: of_users(interactions(whole, s), self.users, whole.num_users) for s in SPLITS}
        return InteractionTables(
            {split: edge[:, ~self.cold[edge[1]]] for split, edge in edges.items()},
            self.users.numel(),
            whole.features,
            graphs=graphs,
            graph_derived=tuple(whole.graph_derived),
            untrained_users=True,
        )


def measured(
    model: str, dataset: InteractionDataset, settings: Settings, seed: int, **options: Any
) -> Any:
    """One training in a folder of its own, without a progress bar."""
    with tempfile.TemporaryDirectory() as folder:
        return train(model, dataset, settings, seed, out=folder, progress=False, **options)


def outcome(result: Any, columns: Iterable[str]) -> dict[str, object]:
    """What a training came to, of the columns that it knows: ``val_recall@20``, ``epochs`` ..."""
    known = {"best_epoch": result.best_epoch, "epochs": len(result.history)}
    for split in ("val", "test"):
        found = getattr(result, split)
        known |= {f"{split}_{name.lower()}": f"{value:.6f}" for name, value in found.items()}
    return {name: known[name] for name in columns if name in known}


def trained(
    model: str, dataset: InteractionDataset, settings: Settings, seed: int, path: Path | None
) -> tuple[GraphRecommender, int]:
    """A trained model and its best epoch, from the file where it is kept, or made now and kept."""
    if path is not None and path.exists():
        state = torch.load(path, weights_only=True)
        network = build_model(model, dataset, settings.modalities, **settings.model)
        network.load_state_dict(state["weights"])
        return network.eval(), state["best_epoch"]
    result = measured(model, dataset, settings, seed)
    if path is not None:
        state = {"weights": result.model.state_dict(), "best_epoch": result.best_epoch}
        with replaced(path) as beside:
            torch.save(state, beside)
    return result.model.eval(), result.best_epoch
