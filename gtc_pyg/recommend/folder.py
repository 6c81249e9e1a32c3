r"""A recommender as a folder: written beside its place, checked before anything is made of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from gtc_pyg.datasets.writing import told
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models.registry import MODELS, build_model, settings_of
from gtc_pyg.recommend import contents, manifest
from gtc_pyg.recommend.exchange import recover, replacing
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.lists import Lists
from gtc_pyg.recommend.manifest import FILES, FORMAT, ITEMS, SUMS, TENSORS, USERS
from gtc_pyg.recommend.tables import read_table, write_table
from gtc_pyg.recommend.trained import Trained

T = TypeVar("T", bound=Trained)

MOST_CELLS = 2**24
"""Values in a table of ids or items, beside as many as the folder has bytes."""


def save(recommender: Trained, path: Path) -> Path:
    r"""Writes the folder beside its place and exchanges them; see :meth:`Recommender.save`."""
    if type(recommender.model) not in MODELS.values():
        raise ValueError(
            f"only models of gtc_pyg.models can be saved (got {type(recommender.model)})"
        )
    settings = settings_of(recommender.model)
    path = Path(os.path.realpath(path))  # a link stays one
    with told(path), replacing(path, lambda: check_place(path)) as beside:
        _write(recommender, settings, beside)
    return path


def _write(recommender: Trained, settings: Mapping[str, Any], beside: Path) -> None:
    features, edge_types = list(recommender.features), list(recommender.inputs.edge_index_dict)
    tensors = _tensors(recommender)
    held = contents.header_of(tensors)
    contents.check_settings(settings, held)
    model, widths = recommender.model, settings.get("in_channels", {})
    contents.check_shapes(held, model, widths, features, edge_types)
    contents.check_values(tensors, edge_types, (model.num_users, model.num_items))
    columns = {name: list(names) for name, names in recommender.columns.items()}
    save_file(tensors, beside / TENSORS, metadata={"columns": json.dumps(columns)})
    write_table(pd.DataFrame({"user": recommender.users.index}), beside / USERS)
    table = [] if recommender.table is None else [recommender.table]
    items = pd.DataFrame({"item": recommender.items.index})
    write_table(pd.concat([items, *table], axis=1), beside / ITEMS)
    edge_lists = [list(key) for key in edge_types]
    manifest.write(beside, {"model": settings, "features": features, "edge_types": edge_lists})
    for file in (SUMS, *FILES):
        (beside / file).chmod(0o666 & ~_umask())
        with (beside / file).open("rb+") as written:
            os.fsync(written.fileno())
    beside.chmod(0o777 & ~_umask())


def check_place(path: str | os.PathLike[str]) -> None:
    r"""Refuses a place where saving would lose something.

    Args:
        path: The folder that is to be written, or replaced.

    Raises:
        FileExistsError: For a file, or a folder that holds anything but a saved recommender.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file: choose another place")
    if not path.is_dir():
        return
    names = {entry.name for entry in path.iterdir()}
    if names and manifest.format_of(path) != FORMAT:
        raise FileExistsError(f"{path} is there and no saved recommender: choose another place")
    others = sorted(names - {SUMS, *FILES})
    if others:
        raise FileExistsError(
            f"{path} holds more than a saved recommender, {others[:3]}: choose another place"
        )


def load(cls: type[T], path: Path) -> T:
    r"""Checks and reads the folder; see :meth:`Recommender.load`."""
    recover(Path(os.path.realpath(path)))
    while True:
        before = _identity(path)
        try:
            found = _load(cls, path)
        except (OSError, ValueError):
            if _identity(path) == before:
                raise
        else:
            if _identity(path) == before:
                return found


def _identity(path: Path) -> tuple[int, ...]:
    """Another one when another folder takes the place, while files are read one after another."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_ctime_ns


def _load(cls: type[T], path: Path) -> T:
    config = manifest.checked(path)
    try:
        return _read(cls, path, config)
    except MemoryError:
        raise
    except Exception as error:  # hostile tables and settings can raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # cannot be read, whatever is in it; Arrow's own have no number
        what = f"{error!s:.1000}".replace(str(path), "it")
        raise ValueError(f"{path}: damaged, or not written by save ({what})") from error


def _read(cls: type[T], path: Path, config: Mapping[str, Any]) -> T:
    """Sizes first: nothing is made before it is known to be no larger than the files."""
    settings, names = config["model"], list(config["features"])
    edge_types = [(source, name, target) for source, name, target in config["edge_types"]]
    held = contents.read_header(path / TENSORS)
    contents.check_settings([settings, names, config["edge_types"]], held)
    with torch.device("meta"):
        model = build_model(settings)
    contents.check_weights(model, held)
    widths = settings.get("in_channels", {})
    num_users, num_items = contents.check_shapes(held, model, widths, names, edge_types)
    most = MOST_CELLS + sum((path / file).stat().st_size for file in FILES)
    users = read_table(path / USERS, num_users, most)
    items = read_table(path / ITEMS, num_items, most)
    tensors = load_file(path / TENSORS)
    contents.check_values(tensors, edge_types, (model.num_users, model.num_items))
    weights = {k.removeprefix("model."): x for k, x in tensors.items() if k.startswith("model.")}
    model.load_state_dict(weights, assign=True)
    model.heads.check()
    features = {name: tensors[f"features.{name}"] for name in names}
    edges = {key: tensors[f"edges.{i}.index"] for i, key in enumerate(edge_types)}
    weighted = {key: f"edges.{i}.weight" for i, key in enumerate(edge_types)}
    inputs = GraphInputs(
        {name: x[: model.num_items] for name, x in features.items()},
        edges,
        {key: tensors[name] for key, name in weighted.items() if name in tensors},
    )
    table = items.drop(columns="item")
    self = cls.__new__(cls)
    self.set_model(model, inputs, _columns(path / TENSORS, features))
    self.features = features
    Lists.__init__(
        self,
        tensors["user_emb"],
        tensors["item_emb"],
        Ids(users["user"], "user"),
        Ids(items["item"], "item"),
        table if len(table.columns) else None,
        tensors["seen"],
        model.item_bias is not None,
    )
    return self


def _columns(path: Path, features: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Names of the content's columns, one for each and none twice."""
    with safe_open(path, "pt") as file:
        columns: dict[str, list[str]] = json.loads((file.metadata() or {}).get("columns", "{}"))
    for name, names in columns.items():
        if sorted(map(str, {*names})) != sorted(names) or len(names) != features[name].size(1):
            raise ValueError(f"columns of {name!r:.80} must be {features[name].size(1)} names")
    return columns


def _tensors(recommender: Trained) -> dict[str, Tensor]:
    inputs = recommender.inputs
    out = {f"model.{key}": value for key, value in recommender.model.state_dict().items()}
    out |= {f"features.{name}": x for name, x in recommender.features.items()}
    for i, (key, edge_index) in enumerate(inputs.edge_index_dict.items()):
        out[f"edges.{i}.index"] = edge_index
        if key in inputs.edge_weight_dict:
            out[f"edges.{i}.weight"] = inputs.edge_weight_dict[key]
    out |= {"seen": recommender.seen}
    out |= {"user_emb": recommender.user_emb, "item_emb": recommender.item_emb}
    # Tensors that share memory cannot be saved.
    return {
        name: x.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, x in out.items()
    }


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
