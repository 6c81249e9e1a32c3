from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.frame_columns import show

_WHAT_TO_DO = {
    "user": "for users who came after training there is fold_in(interactions)",
    "item": "items that came after training are added by add_items(ids, features)",
}


class Ids:
    r"""The user's own ids of users or items, strings or integers, by row.

    Args:
        index: One id for each row, none twice.
        kind: ``'user'`` or ``'item'``, for messages.
    """

    def __init__(self, index: pd.Index, kind: str) -> None:
        if not index.is_unique:
            raise ValueError(
                f"{kind} ids must be unique (got {show(index[index.duplicated()][0])} twice)"
            )
        self.index = index
        self.kind = kind

    def __len__(self) -> int:
        return len(self.index)

    def rows(self, ids: Any) -> Tensor:
        r"""The rows of some ids, in their order ``[N]``; of all where ``None``.

        Args:
            ids: One id, or several.

        Raises:
            ValueError: For an unknown id; says what to do.
        """
        if ids is None:
            return torch.arange(len(self.index))
        if isinstance(ids, Mapping | pd.DataFrame):
            raise ValueError(f"one {self.kind} id or several are expected (got a table or mapping)")
        wanted = self._index_of(as_list(ids))
        rows = self.index.get_indexer(wanted)
        if (rows < 0).any():
            raise ValueError(self._unknown([wanted[i] for i in (rows < 0).nonzero()[0].tolist()]))
        return torch.from_numpy(rows.astype(np.int64))

    def row(self, one: Any) -> Tensor:
        r"""The row of one id ``[1]``.

        Raises:
            ValueError: For an unknown id, none or several.
        """
        ids = [] if one is None else as_list(one)
        if len(ids) != 1:
            raise ValueError(f"one {self.kind} must be given (got {len(ids)})")
        return self.rows(ids)

    def __getitem__(self, rows: Tensor) -> pd.Index:
        return self.index[rows.numpy()]

    def extended(self, ids: Any) -> Ids:
        r"""These and new ones.

        Raises:
            ValueError: For an id that is known already, or of another type.
        """
        new = self._index_of(as_list(ids))
        known = new[new.isin(self.index)]
        if len(known):
            raise ValueError(f"{self.kind} {show(known[0])} is known already, expected new ids")
        if len(new) and len(self.index) and _kind(new) != _kind(self.index):
            raise ValueError(
                f"{self.kind} ids must be {_kind(self.index)} like the known ones "
                f"(got {show(new[0])}, {_kind(new)})"
            )
        return Ids(self.index.append(new), self.kind)

    def _index_of(self, ids: list[Any]) -> pd.Index:
        return pd.Index(ids) if ids else self.index[:0]

    def _unknown(self, ids: list[Any]) -> str:
        known, first = list(self.index[:10_000]), ids[0]
        text = f"unknown {self.kind} {show(first)}"
        if len(ids) > 1:
            text += f" and {len(ids) - 1:,} more"
        examples = ", ".join(show(x) for x in known[:3])
        text += f": {len(self.index):,} {self.kind}s are known, such as {examples}"
        if known and isinstance(first, str) != isinstance(known[0], str):
            meant = [x for x in map(_plain, self.index) if str(x) == str(first)][:1]
            give = f": give {show(meant[0])}" if meant else ""
            text += f"; ids are {_kind(self.index)}, and {show(first)} is not{give}"
            if meant:
                return text
        text_ids = isinstance(first, str) and isinstance(known[0] if known else None, str)
        close = get_close_matches(first, known, 1) if text_ids else []
        if close:
            text += f"; did you mean {show(close[0])}?"
        return f"{text}; {_WHAT_TO_DO[self.kind]}"


def as_list(ids: Hashable | Iterable[Any]) -> list[Any]:
    r"""One id, or several, as a list."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        return [ids]
    if isinstance(ids, Tensor):
        return list(ids.tolist())
    return list(ids)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _kind(index: pd.Index) -> str:
    found = pd.api.types.infer_dtype(index, skipna=False)
    return {"integer": "integers", "string": "strings"}.get(found, f"of mixed types ({found})")
