r"""What the tensors of a folder must be: their shapes, before they are read, and their values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from gtc_pyg.graph.csr_graph import ITEM_TO_USER, USER_TO_ITEM
from gtc_pyg.models import GraphRecommender

MOST_HEADER, MOST_TENSORS = 2**20, 10_000
MOST_DEPTH, MOST_SETTINGS = 8, 1000
MOST_PARTS = 16
"""Mappings among the settings: a model, its parts and what they map."""
MOST_INTEGER = 2**16
"""An integer among the settings is no larger than this or the largest dimension of a tensor."""
MOST_REPEATS = {"layers": 64, "sampling_steps": 1000}
"""Settings of these endings repeat work, which no shape tells of."""

_TYPES = {"F64": torch.double, "F32": torch.float, "F16": torch.half, "BF16": torch.bfloat16}
_TYPES |= {"I64": torch.long, "BOOL": torch.bool}
EdgeTypes = Sequence[tuple[str, str, str]]


class Held(NamedTuple):
    r"""What the header of a file says of a tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def read_header(path: Path) -> dict[str, Held]:
    r"""Shapes and types of a file's tensors, which are not read; they are as large as the file.

    Raises:
        ValueError: For a header that is longer than any that is written, or foreign types.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > MOST_HEADER:
        raise ValueError(f"the header of {path.name} has {size} bytes, more than {MOST_HEADER}")
    out = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            part = file.get_slice(name)
            out[name] = Held(tuple(part.get_shape()), _TYPES[part.get_dtype()])
    if len(out) > MOST_TENSORS:
        raise ValueError(f"{path.name} has {len(out)} tensors, more than {MOST_TENSORS}")
    return out


def header_of(tensors: Mapping[str, Tensor]) -> dict[str, Held]:
    r"""What :func:`read_header` will find of some tensors."""
    return {name: Held(tuple(x.shape), x.dtype) for name, x in tensors.items()}


def check_settings(settings: Any, held: Mapping[str, Held]) -> None:
    r"""Refuses settings that would cost more than the tensors do.

    Args:
        settings: What a model is made of, as plain data.
        held: Shapes of the tensors, its weights among them.

    Raises:
        ValueError: For a number that is too large or not finite, too many entries, or anything but
            mappings, lists, text and numbers.
    """
    sizes = [size for x in held.values() if math.prod(x.shape) > 0 for size in x.shape]
    most, seen, parts = max([MOST_INTEGER, *sizes]), 0, 0
    left: list[tuple[str, Any, int]] = [("model", settings, 0)]
    while left:
        name, value, depth = left.pop()
        seen += 1
        if depth > MOST_DEPTH or seen > MOST_SETTINGS:
            raise ValueError(f"more than {MOST_SETTINGS} settings, or {MOST_DEPTH} in each other")
        if isinstance(value, Mapping):
            parts += 1
            if parts > MOST_PARTS:  # each head may read as many layers as the model
                raise ValueError(f"the settings have more than {MOST_PARTS} parts")
            left += [(str(key)[:80], entry, depth + 1) for key, entry in value.items()]
        elif isinstance(value, list | tuple):
            left += [(name, entry, depth + 1) for entry in value]
        elif isinstance(value, int | float):
            limits = [n for ending, n in MOST_REPEATS.items() if name.endswith(ending)]
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}")
            if limits and abs(value) > limits[0]:
                raise ValueError(f"{name} is {value}, more than {limits[0]}")
            if isinstance(value, int) and abs(value) > most:
                raise ValueError(f"{name} is {value}, more than anything in the weights")
        elif not (value is None or isinstance(value, str)):
            raise ValueError(f"{name} is of the type {type(value).__name__}")


def check_weights(model: GraphRecommender, held: Mapping[str, Held]) -> None:
    r"""Refuses weights of other shapes than those of a model on the meta device.

    Raises:
        ValueError: With the first weight that is missing, not the model's or of another shape, and
            for weights of several types.
    """
    made = header_of({f"model.{key}": x for key, x in model.state_dict().items()})
    for name in {**made, **{name: 0 for name in held if name.startswith("model.")}}:
        mine, found = made.get(name), held.get(name)
        if mine is None or found is None:
            raise ValueError(f"{name} is {'missing' if found is None else 'no weight of it'}")
        if mine.shape != found.shape:
            raise ValueError(f"{name} is {_text(found)}, the settings make {_text(mine)}")
        if mine.dtype != found.dtype and not _both_floating(mine, found):
            raise ValueError(f"{name} is {found.dtype}, expected {mine.dtype}")
    plain = torch.get_default_dtype()
    types = {held[name].dtype for name, mine in made.items() if mine.dtype == plain}
    if len(types) > 1:
        raise ValueError(f"weights are of several types, {sorted(map(str, types))}")


def check_shapes(
    held: Mapping[str, Held],
    model: GraphRecommender,
    widths: Mapping[str, int],
    features: Sequence[str],
    edge_types: EdgeTypes,
) -> tuple[int, int]:
    r"""Refuses tensors beside the weights that are of other shapes than a recommender's.

    Args:
        held: Shapes of all tensors.
        model: Has the numbers of users and items, and the modalities.
        widths: Width of each modality's content.
        features: Names of the content.
        edge_types: Of the graph, in their order.

    Returns:
        How many users and items there are, those added after training included.

    Raises:
        ValueError: With the first tensor that is missing, foreign or of another shape or type.
    """
    users, items = held["user_emb"].shape, held["item_emb"].shape
    if len(users) != 2 or len(items) != 2 or users[1] != items[1] or users[1] < 1:
        raise ValueError(f"user_emb is {list(users)}, item_emb {list(items)}: no pair of tables")
    if users[0] < model.num_users or items[0] < model.num_items:
        raise ValueError(
            f"the model is of {model.num_users} users and {model.num_items} items, but there are "
            f"embeddings of {users[0]} and {items[0]}"
        )
    floating, whole = torch.float, torch.long
    expected = {"user_emb": Held(users, floating), "item_emb": Held(items, floating)}
    expected["seen"] = Held((2, -1), whole)
    lacking = [name for name in model.modalities if name not in features]
    if lacking:
        raise ValueError(f"the model reads {lacking}, but there are features {list(features)}")
    for name in features:
        of = name.removeprefix("has_")
        if of != name and of in features:
            expected[f"features.{name}"] = Held((items[0],), torch.bool)
        else:
            expected[f"features.{name}"] = Held((items[0], widths.get(name, -1)), floating)
    for i, _ in enumerate(edge_types):
        num_edges = held[f"edges.{i}.index"].shape[-1]
        expected[f"edges.{i}.index"] = Held((2, -1), whole)
        if f"edges.{i}.weight" in held:
            expected[f"edges.{i}.weight"] = Held((num_edges,), floating)
    others = {name for name in held if not name.startswith("model.")} ^ set(expected)
    if others:
        raise ValueError(f"{min(others)} is missing, or nothing that is read")
    for name, wanted in expected.items():
        found = held[name]
        fits = len(found.shape) == len(wanted.shape) and all(
            want in (-1, size) for size, want in zip(found.shape, wanted.shape, strict=True)
        )
        if not fits or not (found.dtype == wanted.dtype or _both_floating(found, wanted)):
            raise ValueError(f"{name} is {_text(found)}, expected {_text(wanted)}")
    return users[0], items[0]


def check_values(
    tensors: Mapping[str, Tensor], edge_types: EdgeTypes, trained: tuple[int, int]
) -> None:
    r"""Refuses numbers that are not finite and edges that are none of the graph's.

    Args:
        tensors: By name, of shapes that :func:`check_shapes` took.
        edge_types: Of the graph, in their order.
        trained: How many users and items the graph has.

    Raises:
        ValueError: With the first tensor that is wrong.
    """
    for name, x in tensors.items():
        has = tensors.get(name.replace("features.", "features.has_", 1))
        if x.is_floating_point() and not _finite(x, has if has is not x else None):
            raise ValueError(f"{name} is not finite")
    sizes = dict(zip(("user", "item"), trained, strict=True))
    _check_range("seen", tensors["seen"], tensors["user_emb"].size(0), tensors["item_emb"].size(0))
    edges = {key: tensors[f"edges.{i}.index"] for i, key in enumerate(edge_types)}
    for (source, relation, target), x in edges.items():
        _check_range(relation, x, sizes.get(source, 0), sizes.get(target, 0))
    there, back = edges[USER_TO_ITEM], edges[ITEM_TO_USER].flip(0)
    there, back = ((user * trained[1] + item).sort().values for user, item in (there, back))
    if not torch.equal(there, back):
        raise ValueError("rates and rev_rates are not the same interactions")
    if bool((there[1:] == there[:-1]).any()):
        raise ValueError("rates holds an interaction twice")


def _check_range(name: str, edges: Tensor, num_sources: int, num_targets: int) -> None:
    for row, limit in zip(edges, (num_sources, num_targets), strict=True):
        if row.numel() > 0:
            low, high = (int(end) for end in row.aminmax())
            if not 0 <= low <= high < limit:
                raise ValueError(f"{name} has rows outside 0 to {limit - 1}")


def _finite(x: Tensor, has: Tensor | None) -> bool:
    """Whether all numbers are, or all of the rows that there are."""
    if has is not None:
        return bool((x.isfinite().all(dim=1) | ~has).all())
    return x.numel() == 0 or all(bool(end.isfinite()) for end in x.aminmax())


def _both_floating(one: Held, other: Held) -> bool:
    return one.dtype.is_floating_point and other.dtype.is_floating_point


def _text(held: Held) -> str:
    shape = ", ".join("*" if size < 0 else str(size) for size in held.shape)
    return f"{str(held.dtype).removeprefix('torch.')} [{shape}]"
