from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch

from gtc_pyg.datasets import InteractionDataset
from gtc_pyg.experiment.rows import _reset_peak
from gtc_pyg.lightning import FitResult, fit
from gtc_pyg.models import GraphRecommender, registry
from gtc_pyg.models.registry import MODELS
from gtc_pyg.transforms import ItemKNNGraph

NAMES = {name: cls.__name__ for name, cls in MODELS.items()}


@dataclass(frozen=True)
class Settings:
    r"""How one model is trained on one dataset; ``Settings()`` are the defaults of
    :func:`gtc_pyg.lightning.fit` and of the model, for data of unknown size."""

    lr: float = 2e-3
    epochs: int = 200
    patience: int = 20
    batch_size: int | None = None
    modalities: Sequence[str] | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the model; a part is a mapping of its ``class`` and arguments, as
    :func:`gtc_pyg.models.registry.settings_of` tells them."""
    spectral_start: bool = True
    """As in :func:`gtc_pyg.lightning.fit`."""
    weight_averaging: float = 0.99
    """As in :func:`gtc_pyg.lightning.fit`."""


DEFAULTS = {
    "gtc": Settings(
        lr=0.002,
        epochs=45,
        patience=10,
        batch_size=2048,
        model={
            "content_filter": {"strength": 0.3},
            "ranking": {"class": "SampledSoftmax", "num_negatives": 1024, "scale": 1.5},
            "heads": [
                {"class": "SpectralHead", "channels": 256, "strength": 1.5},
                {"class": "ItemBias"},
            ],
            "edge_dropout": 0.5,
        },
        weight_averaging=0.99,
    ),
    "mgcn": Settings(
        lr=0.001,
        epochs=200,
        patience=20,
        batch_size=2048,
        model={"num_layers": 3, "contrast_weight": 0.01},
        weight_averaging=0.99,
    ),
    "freedom": Settings(
        lr=0.0005,
        epochs=400,
        patience=40,
        batch_size=2048,
        model={"edge_dropout": 0.6, "modality_weight": 0.01},
        spectral_start=False,
        weight_averaging=0.0,
    ),
    "lightgcn": Settings(
        lr=0.0005,
        epochs=200,
        patience=20,
        batch_size=2048,
        model={"num_layers": 4, "regularization": 1e-3},
        weight_averaging=0.995,
    ),
    "spectral": Settings(model={"channels": 256, "num_item_layers": 1}),
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
    **settings: Any,
) -> GraphRecommender:
    r"""A recommender by name, sized for a dataset.

    Args:
        name: One of :data:`gtc_pyg.models.registry.MODELS`.
        dataset: Gives the numbers of users and items, the widths of the content, and which of it
            some items lack.
        modalities: Content to use; all of it where ``None``.
        **settings: Arguments of the model, as :attr:`Settings.model` has them.

    Raises:
        ValueError: For an unknown model, part or argument.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}, expected one of {', '.join(MODELS)}")
    names = dataset.modalities if modalities is None else modalities
    return registry.build_model(
        {"class": MODELS[name].__name__, **settings},
        num_users=dataset.num_users,
        num_items=dataset.num_items,
        in_channels={m: dataset.features[m].size(1) for m in names},
        incomplete=[m for m in dataset.incomplete if m in names],
    )


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
    model = build_model(model_name, dataset, settings.modalities, **settings.model)
    _reset_peak()
    chosen = {key.name: getattr(settings, key.name) for key in fields(settings)}
    del chosen["model"]
    options: dict[str, Any] = {**chosen, "seed": seed, **more}
    return fit(model, dataset, **options)
