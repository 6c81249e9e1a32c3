"""Settings of rows: changed part by part, written whole, read in both of their forms."""

import json
import runpy
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import reduce
from typing import Any

import torch

from gtc_pyg.experiment import NAMES, Settings
from gtc_pyg.experiment.config import merged
from gtc_pyg.models.registry import build_model, settings_of

from .rows import ROOT

SCRIPTS = {"tiktok": "tiktok", "lfm2k": "lfm2k", "baby": "baby", "planted": "quickstart"}
PLACES = {  # arguments of a GTC before it was made of parts, and where they are now
    "condition": "content_filter.condition",
    "num_steps": "content_filter.num_steps",
    "start_step": "content_filter.start_step",
    "num_sampling_steps": "content_filter.num_sampling_steps",
    "content_strength": "content_filter.strength",
    "diffusion_weight": "loss_weights.diffusion",
    "filter_weight": "loss_weights.filter",
    "total_correlation_weight": "loss_weights.total_correlation",
    "product_scale": "alignment.product_scale",
}
_OTHERS = {"alignment", "similarity_gate", "score_scale", "num_negatives", "item_bias"}
_SPECTRAL = {f"low_pass_{key}" for key in ("strength", "channels", "debiasing", "regularization")}


def example_settings(dataset: str) -> dict[str, Settings]:
    """The settings of the data set's example script by model."""
    return dict(runpy.run_path(str(ROOT / "examples" / f"{SCRIPTS[dataset]}.py"))["SETTINGS"])


def nested(path: str, value: Any) -> dict[str, Any]:
    """``{"a": {"b": value}}`` for ``"a.b"``."""
    return reduce(lambda inner, key: {key: inner}, reversed(path.split(".")), value)


def changed(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Settings with some values replaced: of the training where it has the name, or the model."""
    names = {field.name for field in fields(Settings)} & set(changes)
    own = {name: changes[name] for name in names}
    model = {name: value for name, value in changes.items() if name not in names}
    return replace(settings, **{"model": merged(settings.model, model), **own})


def complete(model: str, settings: Settings) -> Settings:
    """The same settings, with every argument of the model and of its parts said."""
    sizes = {"num_users": 1, "num_items": 1, "in_channels": {"content": 1}}
    with torch.random.fork_rng(devices=[]):
        made = build_model({"class": NAMES[model], **settings.model}, **sizes)
    return replace(settings, model=settings_of(made))


def to_json(settings: Settings) -> str:
    """All that ``Settings`` has, keys in order; :func:`from_json` reads it."""
    return json.dumps({**asdict(settings), "model": dict(settings.model)}, sort_keys=True)


def from_json(text: str) -> Settings:
    """Settings from a row."""
    found = json.loads(text)
    return Settings(**{**found, "model": _in_parts(found["model"])})


def alike(model: str, text: str, other: str) -> bool:
    """Whether two texts of rows say the same settings, in whatever form."""
    return text == other or complete(model, from_json(text)) == complete(model, from_json(other))


def _in_parts(model: Mapping[str, Any]) -> dict[str, Any]:
    """Of a GTC before it was made of parts, whose defaults were others; all else as it is."""
    old, known = dict(model), {*PLACES, *_OTHERS, *_SPECTRAL} - {"alignment"}
    if not known & set(old):
        return old
    out: dict[str, Any] = {"edge_dropout": 0.0, "content_filter": {"strength": 0.05}}
    for name in sorted(set(old) - _OTHERS - _SPECTRAL):
        out = merged(out, nested(PLACES.get(name, name), old[name]))
    if old.get("alignment") == "pairwise":
        out["alignment"] = {"class": "PairwiseInfoNCE"}
    if not old.get("similarity_gate", True):
        out["fusion"] = {"class": "UniformGate"}
    scale, negatives = old.get("score_scale", 1.0), old.get("num_negatives", 1)
    softmax = {"class": "SampledSoftmax", "num_negatives": negatives}
    out["ranking"] = {**(softmax if negatives > 1 else {"class": "BPR"}), "scale": scale}
    spectral = {"class": "SpectralHead", "channels": 128}
    spectral |= {key.removeprefix("low_pass_"): old[key] for key in sorted(_SPECTRAL & set(old))}
    strength = round(scale * spectral.get("strength", 0.0), 10)  # it was a share of the scale
    heads = [{**spectral, "strength": strength}] if strength else []
    out["heads"] = heads + [{"class": "ItemBias"}] * old.get("item_bias", False)
    return out
