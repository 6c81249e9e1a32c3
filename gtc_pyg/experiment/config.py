r"""Settings from a YAML file, checked key by key before anything is trained."""

from __future__ import annotations

import math
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import yaml
from torch.nn import Module
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gtc_pyg.experiment.settings import DEFAULTS, MODELS, Settings
from gtc_pyg.models.registry import OF_THE_DATA, PARTS, arguments_of, build_model

_MOVED = {
    "score_scale": "ranking: {class: ..., scale: ...}",
    "num_negatives": "ranking: {class: SampledSoftmax, num_negatives: ...}",
    "item_bias": "heads: [{class: ItemBias}]",
    **{
        f"low_pass_{name}": f"heads: [{{class: SpectralHead, {name}: ...}}]"
        for name in ("strength", "channels", "debiasing", "regularization")
    },
    **{
        name: f"content_filter: {{{new}: ...}}"
        for name, new in {
            "hidden_channels": "channels",
            "filter_channels": "hidden_channels",
            "condition": "condition",
            "num_steps": "num_steps",
            "start_step": "start_step",
            "num_sampling_steps": "num_sampling_steps",
            "user_ids": "user_ids",
            "content_strength": "strength",
            "content_batch_size": "loss_batch_size",
        }.items()
    },
    **{
        f"{name}_weight": f"loss_weights: {{{name}: ...}}"
        for name in ("diffusion", "filter", "total_correlation")
    },
    "similarity_gate": "fusion: {class: UniformGate}",
    "product_scale": "alignment: {product_scale: ...}",
    "filter_in": "nothing: the filter acts in the messages",
    "negatives": "alignment: {negatives: ...}",
    "schedule": "nothing: the schedule is linear",
}  # arguments of a GTC before it was made of parts, and where they are now
_LARGEST = 10_000_000  # of the integers that size a model
_RANGES = {  # the least, the most, and in words
    "lr": (math.ulp(0.0), math.inf, "a number above 0"),
    "epochs": (1, math.inf, "an integer, at least 1"),
    "patience": (0, math.inf, "an integer, at least 0"),
    "batch_size": (1, math.inf, "an integer, at least 1, or null"),
    "weight_averaging": (0.0, math.nextafter(1.0, 0.0), "a number in [0, 1)"),
}


class _Loader(yaml.SafeLoader):
    r"""Reads ``1e-3`` as the number it is in YAML 1.2, and no aliases, which fill any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+"),
    list("-+.0123456789"),
)


def read_settings(path: str | Path, base: Mapping[str, Settings] = DEFAULTS) -> dict[str, Settings]:
    r"""Settings of some models from a YAML file, and those of the others.

    The file has the models' names, below them the fields of :class:`Settings`, and below ``model``
    the arguments of the model that are not of the data::

        gtc:
          lr: 2e-3
          model:
            ranking: {class: SampledSoftmax, num_negatives: 1024, scale: 1.5}
            heads: [{class: SpectralHead, channels: 256}, {class: ItemBias}]
        lightgcn:
          epochs: 200

    What is not in the file is as in :obj:`base`, argument by argument, in parts of the same class,
    too; a list of heads is taken whole. Aliases and tags of one's
    own are not needed: an unknown tag is refused, and nothing in a file is run.

    Args:
        path: The file.
        base: Settings of each model; one that is not in there begins with :obj:`DEFAULTS`.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is no YAML, or a key is unknown or there twice, or a value is of another
            type or out of range. The message names file, line, key and value, and what was
            expected.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"missing file {path.name!r}: expected in the folder {path.parent}")
    try:
        root = yaml.compose(path.read_text(encoding="utf-8-sig"), _Loader)
        found = dict(_read(path, root, base))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: expected settings of models in YAML ({reason})") from error
    return {**base, **found}


def _read(
    path: Path, root: Node | None, base: Mapping[str, Settings]
) -> Iterator[tuple[str, Settings]]:
    if root is None:
        raise ValueError(f"{path}: expected settings of models, some of {list(MODELS)} (got none)")
    for name, node in _entries(path, root, "", MODELS).items():
        hints = typing.get_type_hints(Settings)
        known = [field.name for field in fields(Settings)]
        entries = _entries(path, node, f"{name}.", known)
        values: dict[str, Any] = {}
        for key, entry in entries.items():
            if key != "model":
                values[key] = _value(path, entry, f"{name}.{key}", hints[key], _RANGES.get(key))
        start = base.get(name) or DEFAULTS[name]
        if "model" in entries:
            found = _arguments(path, f"{name}.model", entries["model"], MODELS[name])
            values["model"] = merged(start.model, found)
        made = replace(start, **values)
        _check_model(path, entries.get("model", node), name, made)
        yield name, made


def _arguments(path: Path, where: str, node: Node, cls: type[Module]) -> dict[str, Any]:
    r"""Arguments of a model or part; those that are parts themselves likewise."""
    hints = typing.get_type_hints(cls.__init__)
    known = [key for key in arguments_of(cls) if key not in OF_THE_DATA]
    if where.count(".") > 1:  # not the model itself, which has its name above
        known.append("class")
    out: dict[str, Any] = {}
    for key, entry in _entries(path, node, f"{where}.", known, _MOVED).items():
        what = f"{where}.{key}"
        if key == "class":
            out[key] = cls.__name__
        elif key in PARTS:
            out[key] = _parts(path, what, entry, key)
        else:
            out[key] = _value(path, entry, what, hints[key], None)
    return out


def _parts(path: Path, what: str, node: Node, argument: str) -> Any:
    r"""A part, a list of them (heads), or none."""
    if isinstance(node, SequenceNode) and argument == "heads":
        return [_parts(path, f"{what}[{i}]", entry, argument) for i, entry in enumerate(node.value)]
    if isinstance(node, MappingNode) and (argument != "heads" or what.endswith("]")):
        classes = PARTS[argument]
        named = [value for key, value in node.value if key.value == "class"]
        name = named[0].value if named else next(iter(classes))
        if not isinstance(name, str) or name not in classes:
            raise ValueError(
                f"{_at(path, named[0])}: {what}.class is {_shown(named[0])}, expected "
                f"{' or '.join(classes)}"
            )
        found = _arguments(path, what, node, classes[name])
        return {"class": name, **found} if named else found
    if argument == "alignment" and isinstance(node, ScalarNode) and node.tag.endswith(":null"):
        return None
    form = "a list of mappings" if argument == "heads" else "a mapping"
    raise ValueError(
        f"{_at(path, node)}: {what} is {_shown(node)}, expected {form} with the class, one of "
        f"{', '.join(PARTS[argument])}, and its arguments"
    )


def merged(base: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    r"""Arguments with others before them, in parts of the same class one by one."""
    out = dict(base)
    for key, value in found.items():
        old = out.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            same = value.get("class") in (None, old.get("class"))
            value = merged(old, value) if same else value
        out[key] = value
    return out


def _check_model(path: Path, node: Node, name: str, settings: Settings) -> None:
    r"""Makes a small model, which refuses what is out of range."""
    widths = dict.fromkeys(settings.modalities or ["content"], 1)
    given = {"class": MODELS[name].__name__, **_narrow(settings.model)}
    try:
        with torch.random.fork_rng(devices=[]):
            build_model(given, num_users=1, num_items=1, in_channels=widths, incomplete=[])
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"{_at(path, node)}: {name}.model: {error}") from error


def _narrow(settings: Any) -> Any:
    if isinstance(settings, list | tuple):
        return [_narrow(entry) for entry in settings]
    if not isinstance(settings, Mapping):
        return settings
    return {
        key: min(x, 8) if key.endswith("channels") and x else _narrow(x)
        for key, x in settings.items()
    }


def _entries(
    path: Path,
    node: Node,
    where: str,
    known: Iterable[str],
    moved: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Node]:
    r"""The keys of a mapping, known ones and each once."""
    of = where.removesuffix(".") or "the file"
    if not isinstance(node, MappingNode):
        raise ValueError(f"{_at(path, node)}: {of} is {_shown(node)}, expected 'key: value' lines")
    found: dict[str, Node] = {}
    for key_node, value in node.value:
        key, names = key_node.value, list(known)
        if isinstance(key, str) and key in moved and key not in names:
            raise ValueError(
                f"{_at(path, key_node)}: {where}{key} is the form of an earlier version, now "
                f"{moved[key]}"
            )
        if not isinstance(key, str) or key not in names:
            close = get_close_matches(str(key), names, 1)
            hint = f" in {of}" + (f"; did you mean {close[0]!r}?" if close else "")
            raise ValueError(
                f"{_at(path, key_node)}: unknown key {_shown(key_node)}{hint} (expected some of "
                f"{', '.join(names)})"
            )
        if key in found:
            raise ValueError(
                f"{_at(path, key_node)}: {where}{key} is there twice, expected once (the first is "
                f"in line {found[key].start_mark.line + 1})"
            )
        found[key] = value
    return found


def _value(
    path: Path, node: Node, what: str, hint: Any, limits: tuple[float, float, str] | None
) -> Any:
    try:
        value = _Loader("").construct_object(node, deep=True)
        shown = f"{value!r:.80}"  # Python shows no integer of thousands of digits
    except (
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:  # a wrong tag
        raise ValueError(f"{_at(path, node)}: {what} cannot be read ({error!r})") from error
    least, most, words = limits or (0, _LARGEST, _words(hint))
    number = isinstance(value, int | float)
    if not _fits(value, hint) or (number and not least <= value <= most):
        raise ValueError(f"{_at(path, node)}: {what} is {shown}, expected {words}")
    return float(value) if hint is float else value


def _shown(node: Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return f"{node.value!r:.80}"
    return "a mapping" if isinstance(node, MappingNode) else "a list"


def _at(path: Path, node: Node) -> str:
    return f"{path}, line {node.start_mark.line + 1}"


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, part) for part in hint.__args__)
    if typing.get_origin(hint) is Mapping:
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(entry, hint.__args__[1]) for key, entry in value.items()
        )
    if typing.get_origin(hint) is Sequence:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float) and abs(value) <= sys.float_info.max
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_words(part) for part in hint.__args__)
    if typing.get_origin(hint) is Sequence:
        return "a list of names"
    if typing.get_origin(hint) is Mapping:
        return "a mapping of names to numbers"
    plain = {
        int: f"an integer from 0 to {_LARGEST:,}",
        float: "a number, at least 0",
        bool: "true or false",
        str: "a word",
    }
    return plain.get(hint, "null")
