from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.lightning import FitResult, fit
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import FREEDOM, GTC, MGCN, GraphRecommender, LightGCN
from gtc_pyg.transforms import ItemKNNGraph
from gtc_pyg.utils.provenance import reset_peak

MODELS: dict[str, Callable[..., GraphRecommender]] = {
    "lightgcn": LightGCN,
    "freedom": FREEDOM,
    "mgcn": MGCN,
    "gtc": GTC,
}
NAMES = {"gtc": "GTC", "mgcn": "MGCN", "freedom": "FREEDOM", "lightgcn": "LightGCN"}


@dataclass(frozen=True)
class Settings:
    r"""How one model is trained on one dataset; chosen on validation."""

    lr: float = 1e-3
    epochs: int = 100
    patience: int = 10
    batch_size: int = 2048
    modalities: Sequence[str] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    spectral_start: bool = False
    """Whether ID embeddings start from the training interactions."""
    weight_averaging: float = 0.0
    """As in :func:`gtc_pyg.lightning.fit`."""


DEFAULTS = {
    "gtc": Settings(
        lr=0.002,
        epochs=45,
        model={
            "edge_dropout": 0.5,
            "content_strength": 0.3,
            "score_scale": 1.5,
            "num_negatives": 1024,
            "item_bias": True,
            "low_pass_strength": 1.0,
            "low_pass_channels": 256,
        },
        spectral_start=True,
        weight_averaging=0.99,
    ),
    "mgcn": Settings(
        lr=0.001,
        epochs=200,
        patience=20,
        model={"num_layers": 3, "contrast_weight": 0.01},
        spectral_start=True,
        weight_averaging=0.99,
    ),
    "freedom": Settings(
        lr=0.0005,
        epochs=400,
        patience=40,
        model={"edge_dropout": 0.6, "modality_weight": 0.01},
    ),
    "lightgcn": Settings(
        lr=0.0005,
        epochs=200,
        patience=20,
        model={"num_layers": 4, "regularization": 1e-3},
        spectral_start=True,
        weight_averaging=0.995,
    ),
}
r"""The default preset, for data without settings of its own.

All were found on Amazon Baby's validation interactions, with graph-derived features: GTC's by hand,
the baselines' as the best of twenty trials each, FREEDOM's by hand after its twenty, as the best of
these was short of what is published. No other set was looked at for them. :func:`default_graph`
makes the item graph that goes with them.
"""


def default_graph(modalities: Sequence[str]) -> ItemKNNGraph:
    r"""The item graph of the default preset: ten neighbours.

    Text weighs 0.9 and the others share 0.1, as FREEDOM's published configuration has it for text
    and images; without text, or with nothing else, all weigh the same.

    Args:
        modalities: Names of the content.
    """
    num_others = len(set(modalities) - {"text"})
    if num_others in (0, len(modalities)):
        return ItemKNNGraph(k=10)
    weights = {name: 0.9 if name == "text" else 0.1 / num_others for name in modalities}
    return ItemKNNGraph(k=10, weights=weights)


def build_model(
    name: str,
    dataset: InteractionDataset,
    modalities: Sequence[str] | None = None,
    spectral_start: bool = False,
    **settings: Any,
) -> GraphRecommender:
    r"""A recommender by name, sized for a dataset.

    Args:
        name: ``'gtc'``, ``'mgcn'``, ``'freedom'`` or ``'lightgcn'``.
        dataset: Gives the numbers of users and items and the widths of the content.
        modalities: Content to use; all of it where ``None``.
        spectral_start: Whether ID embeddings start from the training interactions
            (:meth:`~gtc_pyg.models.GraphRecommender.start_from`).
        **settings: Arguments of the model. GTC's ``incomplete`` is that of the dataset where it is
            not given.

    Raises:
        ValueError: For an unknown model.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    sizes: list[Any] = [dataset.num_users, dataset.num_items]
    if name != "lightgcn":
        names = dataset.modalities if modalities is None else modalities
        sizes.append({m: dataset.features[m].size(1) for m in names})
        if name == "gtc":
            lacking = [m for m in dataset.incomplete if m in names]
            settings = {"incomplete": lacking, **settings}
    model = MODELS[name](*sizes, **settings)
    if spectral_start:
        model.start_from(dataset[0]["user", "rates", "item"].edge_index)
    if model.low_pass is not None:
        inputs = GraphInputs.from_data(dataset[0], [])
        model.fit_low_pass(inputs.edge_index_dict, inputs.edge_weight_dict)
    return model


def train(
    model_name: str, dataset: InteractionDataset, settings: Settings, seed: int = 0, **more: Any
) -> FitResult:
    r"""Draws a recommender's weights and trains it as the settings say.

    Args:
        model_name: ``name`` in :func:`build_model`.
        dataset: As in :func:`build_model`.
        settings: How.
        seed: Seeds all that is random.
        **more: Further arguments of :func:`gtc_pyg.lightning.fit`, which go before the settings'.
    """
    torch.manual_seed(seed)
    model = build_model(
        model_name, dataset, settings.modalities, settings.spectral_start, **settings.model
    )
    reset_peak()
    named = ("lr", "epochs", "batch_size", "patience", "weight_averaging", "modalities")
    chosen = {key: getattr(settings, key) for key in named}
    options: dict[str, Any] = {**chosen, "seed": seed, **more}
    return fit(model, dataset, **options)
