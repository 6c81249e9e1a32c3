r"""The base of all datasets: a training view, and held-out views that share its tensors."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch_geometric.data import HeteroData, InMemoryDataset
from torch_geometric.transforms import BaseTransform

from gtc_pyg.datasets.checked_file import load_checked, save_checked
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.datasets.raw_files import require_files
from gtc_pyg.datasets.writing import beside_of, locked, replacing, system_error

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)


class InteractionDataset(InMemoryDataset):
    r"""Interactions of users with items that carry content, as one :class:`HeteroData`.

    - ``data['user'].num_nodes``, ``data['item'].num_nodes``;
    - ``data['item'].x_<modality>``: content ``[num_items, F]``, float32, and where some items lack
      it ``data['item'].has_<modality>`` ``[num_items]``, bool;
    - ``('user', 'rates', 'item')`` and ``('item', 'rev_rates', 'user')``: training interactions;
    - ``('item', 'similar_<modality>', 'item')`` with ``edge_weight`` where a similarity graph is
      published: ``edge_index[0]`` is the neighbour, ``edge_index[1]`` the item whose it is.

    ``dataset[0]`` is the training view: its ``('user', 'rates', 'item').edge_label_index`` are
    the training edges, and no held-out interaction can be reached from it. :meth:`view` gives
    the views for evaluation.

    A subclass names its files in :attr:`raw_file_names`, its settings in
    :meth:`processed_name`, and reads the files in :meth:`build`. The base validates what
    it reads, writes ``processed/`` by renaming a finished file, and loads it with
    ``torch.load(weights_only=True)``, so that no code from a file is run. The file is made anew
    when the size or time of a raw file changes and, with a warning, when its checksum is wrong. Of
    several processes that need it at the same time one makes it and the others wait. Nothing is
    cached (a line in the log says so) where :obj:`root` is marked read-only, even for one who may
    ignore the mark, or where :obj:`pre_transform` cannot be described by its settings (a function).

    Args:
        root (str, optional): The folder that has, or will have, ``raw/`` and ``processed/``.
            :obj:`None` keeps everything in memory.
        transform (callable, optional): Applied to each view whenever it is taken.
        pre_transform (callable, optional): Applied once to the training view, before it is saved.
            It must keep the users and the items.
        force_reload (bool): Whether to process again. (default: :obj:`False`)
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        transform: Callable[..., Any] | None = None,
        pre_transform: Callable[..., Any] | None = None,
        force_reload: bool = False,
    ) -> None:
        self._payload: dict[str, Any] = {}
        self._user_ids: pd.Index | None = None
        self._item_ids: pd.Index | None = None
        self._items: pd.DataFrame | None = None
        super().__init__(
            None if root is None else os.fspath(root),
            transform,
            pre_transform,
            force_reload=force_reload,
        )
        payload, self._payload = self._payload, {}
        self.data, self.slices = HeteroData.from_dict(payload["data"]), None
        self._splits: dict[str, Tensor] = payload["splits"]
        self.modalities: tuple[str, ...] = tuple(payload["modalities"])
        self.graph_derived: tuple[str, ...] = tuple(payload["graph_derived"])

    def build(self) -> InteractionTables:
        r"""Reads the raw files. To be written by each dataset."""
        raise NotImplementedError

    def processed_name(self) -> str:
        r"""A file name that states all settings of the content but :obj:`pre_transform`."""
        return "data"

    @property
    def raw_file_names(self) -> list[str]:
        return []

    @property
    def processed_file_names(self) -> list[str]:
        if self.pre_transform is None:
            return [f"{self.processed_name()}.pt"]
        described = _describe(self.pre_transform) or "undescribed"
        digest = hashlib.sha256(described.encode()).hexdigest()[:12]
        return [f"{self.processed_name()}_{digest}.pt"]

    @property
    def num_users(self) -> int:
        r"""The number of users."""
        return int(self._data["user"].num_nodes)

    @property
    def num_items(self) -> int:
        r"""The number of items."""
        return int(self._data["item"].num_nodes)

    @property
    def incomplete(self) -> tuple[str, ...]:
        r"""The modalities that some items lack, which is what GTC takes as ``incomplete``."""
        return tuple(name for name in self.modalities if f"has_{name}" in self._data["item"])

    @property
    def user_ids(self) -> pd.Index:
        r"""One's own ids of the users by row; public sets have the rows' numbers. Needs pandas."""
        return _range_index(self.num_users) if self._user_ids is None else self._user_ids

    @property
    def item_ids(self) -> pd.Index:
        r"""One's own ids of the items by row; public sets have the rows' numbers. Needs pandas."""
        return _range_index(self.num_items) if self._item_ids is None else self._item_ids

    @property
    def items(self) -> pd.DataFrame | None:
        r"""What there is to show of each item (title, tags, ...), by row, or :obj:`None`."""
        return self._items

    @property
    def features(self) -> dict[str, Tensor]:
        r"""Modality to content ``[num_items, F]``, in the order of :attr:`modalities`."""
        return {name: self._data["item"][f"x_{name}"] for name in self.modalities}

    def get(self, idx: int) -> HeteroData:
        return self._view("train")

    def view(self, split: str) -> HeteroData:
        r"""The view of a split: its own ``edge_label_index``, all else shared with ``dataset[0]``.

        Messages pass over training edges alone, and :obj:`transform` is applied.

        Args:
            split (str): ``'train'``, ``'val'`` or ``'test'``.

        Raises:
            ValueError: If :obj:`split` is none of them.
        """
        data = self._view(split)
        return data if self.transform is None else self.transform(data)

    def _view(self, split: str) -> HeteroData:
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}: expected 'train', 'val' or 'test'")
        data = copy.copy(self._data)
        store = data["user", "rates", "item"]
        store.edge_label_index = self._splits[split].to(store.edge_index.device)
        return data

    def download(self) -> None:
        require_files(*self.raw_paths)

    def _download(self) -> None:
        if all(os.path.isfile(path) for path in self.raw_paths):
            return
        if self.root != "???" and not _writable(self.raw_dir):
            try:
                require_files(*self.raw_paths)
            except FileNotFoundError as error:
                message = f"{error}, which is read-only: nothing is downloaded into it"
                raise FileNotFoundError(message) from None
        self.download()

    def _process(self) -> None:
        if self.root == "???":
            return self.process()
        before = _identity(self.processed_paths[0])
        if not self.force_reload and self._load():
            return self._sweep()
        with ExitStack() as stack:
            reason = self._not_cached()
            if not reason:
                try:
                    os.makedirs(self.root, exist_ok=True)
                    stack.enter_context(locked(self._claim))
                except OSError as error:
                    reason = f"{self.root} cannot be written ({_reason(error)})"
            another = _identity(self.processed_paths[0]) != before  # made while this one waited
            if another and not self.force_reload and self._load():
                return
            self.process()
            reason = reason or self._save()
        if reason:
            logger.warning("%s: nothing is cached", reason)

    def process(self) -> None:
        raw = self._fingerprint()  # of the files before they are read
        tables = self.build()
        tables.validate()
        data = tables.to_hetero_data()
        if self.pre_transform is not None:
            data = self.pre_transform(data)
            for kind, expected in (("user", tables.num_users), ("item", tables.num_items)):
                if data[kind].num_nodes != expected:
                    raise ValueError(
                        f"pre_transform changed the number of {kind}s from {expected} to "
                        f"{data[kind].num_nodes}, so held-out interactions no longer fit"
                    )
        self._payload = {
            "data": data.to_dict(),
            "splits": dict(tables.splits),
            "modalities": list(tables.features),
            "graph_derived": list(tables.graph_derived),
            "raw": raw,
        }

    def _fingerprint(self) -> list[tuple[str, int, int]]:
        found = [(os.path.basename(path), os.stat(path)) for path in self.raw_paths]
        return [(name, status.st_size, status.st_mtime_ns) for name, status in found]

    def _load(self) -> bool:
        path = self.processed_paths[0]
        if not os.path.isfile(path) or not self._describable():
            return False
        try:
            payload = load_checked(Path(path))
            current = payload["raw"] == self._fingerprint()
        except Exception as error:  # damaged bytes can raise anything
            logger.warning("%s cannot be read safely (%s), processing again", path, error)
            return False
        self._payload = payload if current else {}
        return bool(current)

    def _describable(self) -> bool:
        return self.pre_transform is None or _describe(self.pre_transform) is not None

    @property
    def _claim(self) -> str:
        r"""What one process at a time may make: beside ``processed/``, which may come and go."""
        return f"{self.processed_dir}.{os.path.basename(self.processed_paths[0])}"

    def _not_cached(self) -> str:
        r"""Why nothing is to be cached, if so."""
        if not self._describable():
            return "pre_transform has no settings to name a file by"
        return "" if _writable(self.processed_dir) else f"{self.root} is read-only"

    def _save(self) -> str:
        r"""Caches what was made; says why where that cannot be."""
        created = not os.path.isdir(self.processed_dir)
        try:
            os.makedirs(self.processed_dir, exist_ok=True)
            with replacing(self.processed_paths[0]) as beside:
                save_checked(self._payload, beside)
        except BaseException as error:
            if created:
                with suppress(OSError):
                    os.rmdir(self.processed_dir)
            if not system_error(error) and not isinstance(error, OSError):
                raise
            return f"{self.root} cannot be written ({_reason(error)})"
        return ""

    def _sweep(self) -> None:
        r"""Removes what a process left that was killed while it wrote."""
        left = beside_of(Path(self.processed_paths[0]))
        if left.exists():
            with suppress(RuntimeError, OSError), locked(self._claim, "being written"):
                left.unlink(missing_ok=True)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _reason(error: BaseException) -> object:
    number = system_error(error)
    return os.strerror(number) if number else error


def _range_index(size: int) -> pd.Index:
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        message = 'tables of ids need pandas: pip install "gtc-pyg[data]"'
        raise ModuleNotFoundError(message, name=error.name) from error
    return pd.RangeIndex(size)


def _writable(folder: str) -> bool:
    # Mode bits besides os.access, which grants root everything: a read-only mark is a wish.
    while not os.path.isdir(folder):
        folder = os.path.dirname(os.path.abspath(folder))
    anyone = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return os.access(folder, os.W_OK) and bool(os.stat(folder).st_mode & anyone)


def _describe(value: Any) -> str | None:
    r"""A text that differs where settings differ, or None where no such text is known."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    parts: list[str | None]
    if isinstance(value, dict):
        parts = [_describe(entry) for pair in value.items() for entry in pair]
    elif isinstance(value, list | tuple):
        parts = [_describe(entry) for entry in value]
    elif isinstance(value, BaseTransform):
        parts = [_describe(vars(value))]
    else:
        return None
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return None if None in parts else f"{name}({', '.join(str(part) for part in parts)})"
