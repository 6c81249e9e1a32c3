r"""Models and parts by name: built from plain settings, and described by them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch.nn import Module, ModuleList

from gtc_pyg.models.freedom import FREEDOM
from gtc_pyg.models.graph_recommender import GraphRecommender
from gtc_pyg.models.gtc import GTC, ContentFilter
from gtc_pyg.models.heads import ItemBias, SpectralHead
from gtc_pyg.models.lightgcn import LightGCN
from gtc_pyg.models.mgcn import MGCN
from gtc_pyg.models.spectral_filter import SpectralFilter
from gtc_pyg.nn import (
    BPR,
    PairwiseInfoNCE,
    SampledSoftmax,
    SimilarityGate,
    TotalCorrelationLoss,
    UniformGate,
)

MODELS: dict[str, type[GraphRecommender]] = {
    "lightgcn": LightGCN,
    "freedom": FREEDOM,
    "mgcn": MGCN,
    "gtc": GTC,
    "spectral": SpectralFilter,
}
"""Recommenders by the names that commands and files of settings use."""

PARTS: dict[str, dict[str, type[Module]]] = {
    "content_filter": {"ContentFilter": ContentFilter},
    "fusion": {"SimilarityGate": SimilarityGate, "UniformGate": UniformGate},
    "alignment": {
        "TotalCorrelationLoss": TotalCorrelationLoss,
        "PairwiseInfoNCE": PairwiseInfoNCE,
    },
    "ranking": {"SampledSoftmax": SampledSoftmax, "BPR": BPR},
    "heads": {"SpectralHead": SpectralHead, "ItemBias": ItemBias},
}
"""The parts that an argument of a model may be, by argument; the first is meant where settings name
no class."""

NEED_CLASS = ("model", "ranking", "heads")
"""Arguments whose settings must name the class: models differ in what they take by default."""

OF_THE_DATA = ("num_users", "num_items", "in_channels", "incomplete")
"""Arguments that a data set gives."""


def settings_of(module: Module) -> dict[str, Any]:
    r"""What makes a model or part as it is, as plain data: ``class`` and its arguments by name.

    Args:
        module: A model of :data:`MODELS` or a part of :data:`PARTS`, which keep their arguments
            as attributes of the same names.

    Raises:
        ValueError: For another class: its settings could not be built again.

    Example:
        >>> from gtc_pyg.nn import SampledSoftmax
        >>> settings_of(SampledSoftmax(256))
        {'class': 'SampledSoftmax', 'num_negatives': 256, 'scale': 1.0}
    """
    classes = {*MODELS.values(), *(cls for part in PARTS.values() for cls in part.values())}
    if type(module) not in classes:
        raise ValueError(
            f"{type(module).__name__} is no model or part of gtc_pyg, so its settings cannot be "
            f"kept"
        )
    names = arguments_of(type(module))
    return {"class": type(module).__name__, **{n: plain_value(getattr(module, n)) for n in names}}


def arguments_of(cls: type[Module]) -> dict[str, inspect.Parameter]:
    r"""The arguments of a model or part by name."""
    various = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    found = inspect.signature(cls).parameters
    return {name: argument for name, argument in found.items() if argument.kind not in various}


def plain_value(value: Any) -> Any:
    r"""An argument of a model or part as plain data."""
    if isinstance(value, ModuleList):
        return [settings_of(part) for part in value]
    if isinstance(value, Module):
        return settings_of(value)
    if isinstance(value, Mapping):
        return {str(key): plain_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_value(entry) for entry in value]
    return value.item() if hasattr(value, "item") else value  # NumPy's numbers


def build_model(settings: Mapping[str, Any], **of_the_data: Any) -> GraphRecommender:
    r"""A model from what :func:`settings_of` gives, or from less: the rest is as by default.

    Args:
        settings: ``class`` and arguments; parts as mappings of the same form.
        **of_the_data: Sizes and widths (:data:`OF_THE_DATA`), given to the model and to each part
            that takes them and has none in ``settings``.

    Raises:
        ValueError: For an unknown class or argument.
    """
    classes: dict[str, type[Module]] = {cls.__name__: cls for cls in MODELS.values()}
    model = _build("model", classes, settings, of_the_data)
    assert isinstance(model, GraphRecommender)
    return model


def _build(
    argument: str,
    classes: Mapping[str, type[Module]],
    settings: Mapping[str, Any],
    of_the_data: Mapping[str, Any],
) -> Module:
    if "class" not in settings and argument in NEED_CLASS:
        raise ValueError(f"'{argument}' needs its class, one of {', '.join(classes)}")
    name = settings.get("class", next(iter(classes)))
    if not isinstance(name, str) or name not in classes:
        raise ValueError(
            f"'{argument}' must be of the class {' or '.join(classes)} (got {name!r:.80})"
        )
    cls = classes[name]
    known = arguments_of(cls)
    given = {key: value for key, value in settings.items() if key != "class"}
    unknown = sorted(set(given) - set(known))
    if unknown:
        has = ", ".join(known) or "nothing"
        raise ValueError(f"{name} has no {unknown[0]!r:.80} (it has {has})")
    for key, value in of_the_data.items():
        if key in known:
            given.setdefault(key, value)
    for key, value in given.items():
        given[key] = _part(key, value, of_the_data) if key in PARTS else value
    if argument == "model" and of_the_data.get("incomplete") and "content_filter" in known:
        given.setdefault("content_filter", _part("content_filter", {}, of_the_data))
    return cls(**given)


def _part(argument: str, value: Any, of_the_data: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return _build(argument, PARTS[argument], value, of_the_data)
    if isinstance(value, list | tuple):
        return [_part(argument, entry, of_the_data) for entry in value]
    return value
