r"""A recommender as a folder: written beside its place, checked before anything is made of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from gtc_pyg import models
from gtc_pyg.datasets.writing import told
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GraphRecommender
from gtc_pyg.recommend import manifest
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.item_table import read_table, write_table
from gtc_pyg.recommend.lists import Lists
from gtc_pyg.recommend.manifest import CONFIG, FILES, FORMAT, ITEMS, TENSORS, USERS

if TYPE_CHECKING:
    from gtc_pyg.recommend.recommender import Recommender


def save(recommender: Recommender, path: Path) -> Path:
    r"""Writes the folder beside its place and renames it; see :meth:`Recommender.save`."""
    model = recommender.model
    name = type(model).__name__
    if getattr(models, name, None) is not type(model):
        raise ValueError(f"only models of gtc_pyg.models can be saved (got {type(model)})")
    check_place(path)
    path = Path(os.path.realpath(path))  # a link stays one
    with told(path):
        _write(recommender, name, path)
    return path


def _write(recommender: Recommender, name: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        edge_types = list(recommender.inputs.edge_index_dict)
        save_file(_tensors(recommender), beside / TENSORS)
        write_table(pd.DataFrame({"user": recommender.users.index}), beside / USERS)
        items = pd.DataFrame({"item": recommender.items.index})
        table = [] if recommender.table is None else [recommender.table]
        write_table(pd.concat([items, *table], axis=1), beside / ITEMS)
        entries = {
            "model": name,
            "arguments": _plain(recommender.model.current_arguments()),
            "features": list(recommender.features),
            "columns": {name: list(names) for name, names in recommender.columns.items()},
            "edge_types": [list(key) for key in edge_types],
        }
        manifest.write(beside, entries)
        for file in (CONFIG, *FILES):
            (beside / file).chmod(0o666 & ~_umask())
            with (beside / file).open("rb+") as written:
                os.fsync(written.fileno())
        beside.chmod(0o777 & ~_umask())
        _replace(beside, path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


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
    others = sorted(names - {CONFIG, *FILES})
    if others:
        raise FileExistsError(
            f"{path} holds more than a saved recommender, {others[:3]}: choose another place"
        )


def load(cls: type[Recommender], path: Path) -> Recommender:
    r"""Checks and reads the folder; see :meth:`Recommender.load`."""
    config = manifest.checked(path)
    try:
        tensors = load_file(path / TENSORS)
        users, items = (read_table(path / file) for file in (USERS, ITEMS))
        model = _model(config, tensors)
        keys = [(source, name, target) for source, name, target in config["edge_types"]]
        features = {name: tensors[f"features.{name}"] for name in config["features"]}
        inputs = GraphInputs(
            {name: x[: model.num_items] for name, x in features.items()},
            {key: tensors[f"edges.{i}.index"] for i, key in enumerate(keys)},
            {
                key: tensors[f"edges.{i}.weight"]
                for i, key in enumerate(keys)
                if f"edges.{i}.weight" in tensors
            },
        )
        _check_rows(model, tensors, inputs, (len(users), len(items)))
        self = cls.__new__(cls)
        self._set_model(model, inputs, _columns(config.get("columns", {}), features))
        self.features = features
        table = items.drop(columns="item")
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
    except Exception as error:  # hostile tables and arguments can raise anything
        if isinstance(error, OSError) and error.errno is not None:
            raise  # cannot be read, whatever is in it; Arrow's own have no number
        what = str(error).replace(str(path), "it")
        raise ValueError(f"{path}: damaged, or not written by save ({what})") from error
    return self


def _tensors(recommender: Recommender) -> dict[str, Tensor]:
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


def _model(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> GraphRecommender:
    """The model, once its tables are known to be as large as the weights that were saved."""
    cls = getattr(models, str(config["model"]), None)
    if not (isinstance(cls, type) and issubclass(cls, GraphRecommender)):
        raise ValueError(f"unknown model {config['model']!r}")
    arguments = config["arguments"]
    sizes = tensors["model.user_emb.weight"], tensors["model.item_emb.weight"]
    for name, table in zip(("num_users", "num_items"), sizes, strict=True):
        if arguments[name] != table.size(0):
            raise ValueError(f"{name} is {arguments[name]}, but the weights have {table.size(0)}")
    if arguments.get("hidden_channels", sizes[0].size(1)) != sizes[0].size(1):
        raise ValueError("hidden_channels is not the width of the weights")
    most = max(2**20, *(size for x in tensors.values() for size in x.shape))
    for name, value in [*arguments.items(), *arguments.get("in_channels", {}).items()]:
        if isinstance(value, int) and value > most:
            raise ValueError(f"{name} is {value}, more than anything in the weights")
    with torch.random.fork_rng(devices=[]):
        model: GraphRecommender = cls(**arguments)
    state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    model.load_state_dict(state)
    return model


def _columns(columns: Mapping[str, list[str]], features: Mapping[str, Tensor]) -> Any:
    """Names of the content's columns, one for each and none twice."""
    for name, names in columns.items():
        if sorted(map(str, {*names})) != sorted(names) or len(names) != features[name].size(1):
            raise ValueError(f"columns of {name!r} must be {features[name].size(1)} names")
    return columns


def _replace(beside: Path, path: Path) -> None:
    if not path.exists():
        os.rename(beside, path)
        return
    old = path.with_name(beside.name.removesuffix(".part") + ".old")
    os.rename(path, old)
    try:
        os.rename(beside, path)
    except OSError:
        os.rename(old, path)
        raise
    shutil.rmtree(old)


def _check_rows(
    model: GraphRecommender,
    tensors: Mapping[str, Tensor],
    inputs: GraphInputs,
    sizes: tuple[int, int],
) -> None:
    """Interactions and graph speak of the rows that there are, of which each has its id."""
    for what, size in zip(("user", "item"), sizes, strict=True):
        rows = tensors[f"{what}_emb"].size(0)
        if size != rows:
            raise ValueError(f"{size} {what} ids, but {rows} embeddings")
    ends = {"user": model.num_users, "item": model.num_items}
    pairs = [("seen", tensors["seen"], sizes)]
    for (source, relation, target), edges in inputs.edge_index_dict.items():
        pairs.append((relation, edges, (ends.get(source, 0), ends.get(target, 0))))
    for name, edges, limits in pairs:
        if edges.dim() != 2 or edges.size(0) != 2 or edges.dtype != torch.long:
            raise ValueError(f"{name} must be pairs (got {list(edges.shape)})")
        for row, limit in zip(edges, limits, strict=True):
            if row.numel() > 0 and not 0 <= int(row.min()) <= int(row.max()) < limit:
                raise ValueError(f"{name} has rows outside 0 to {limit - 1}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
