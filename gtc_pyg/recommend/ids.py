from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.exact_ids import (
    KINDS,
    appended,
    exact_ids,
    lookup,
    rows_of,
    show,
)

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

    def __init__(self, index: Any, kind: str) -> None:
        index = exact_ids(index, f"{kind} ids")
        self._lookup = lookup(index)
        if not self._lookup.is_unique:
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
        wanted = exact_ids(ids, f"{self.kind} ids")
        rows = self.found(wanted)
        if (rows < 0).any():
            raise ValueError(self._unknown(wanted[rows.numpy() < 0].tolist()))
        return rows

    def found(self, ids: pd.Index) -> Tensor:
        r"""The rows of ids as :func:`~gtc_pyg.datasets.exact_ids.exact_ids` gives them, -1 where
        one is unknown ``[N]``.
        """
        return torch.from_numpy(rows_of(ids, self._lookup))

    def row(self, one: Any) -> Tensor:
        r"""The row of one id ``[1]``.

        Raises:
            ValueError: For an unknown id, none or several.
        """
        rows = self.rows([] if one is None else one)
        if len(rows) != 1:
            raise ValueError(f"one {self.kind} must be given (got {len(rows)})")
        return rows

    def __getitem__(self, rows: Tensor) -> pd.Index:
        return self.index[rows.numpy()]

    def extended(self, ids: Any) -> Ids:
        r"""These and new ones.

        Raises:
            ValueError: For an id that is known already, or of another type.
        """
        new = exact_ids(ids, f"{self.kind} ids")
        known = new[self.found(new).numpy() >= 0]
        if len(known):
            raise ValueError(f"{self.kind} {show(known[0])} is known already, expected new ids")
        if len(new) and len(self.index) and _kind(new) != _kind(self.index):
            raise ValueError(
                f"{self.kind} ids must be {_kind(self.index)} like the known ones "
                f"(got {show(new[0])}, {_kind(new)})"
            )
        return Ids(appended(self.index, new, f"{self.kind} ids"), self.kind)

    def _unknown(self, ids: list[Any]) -> str:
        known, first = self.index[:10_000].tolist(), ids[0]
        text = f"unknown {self.kind} {show(first)}"
        if len(ids) > 1:
            text += f" and {len(ids) - 1:,} more"
        examples = ", ".join(show(x) for x in known[:3])
        text += f": {len(self.index):,} {self.kind}s are known, such as {examples}"
        if known and isinstance(first, str) != isinstance(known[0], str):
            meant = [x for x in self.index.tolist() if str(x) == str(first)][:1]
            give = f": give {show(meant[0])}" if meant else ""
            text += f"; ids are {_kind(self.index)}, and {show(first)} is not{give}"
            if meant:
                return text
        text_ids = isinstance(first, str) and isinstance(known[0] if known else None, str)
        close = get_close_matches(first, known, 1) if text_ids else []
        if close:
            text += f"; did you mean {show(close[0])}?"
        return f"{text}; {_WHAT_TO_DO[self.kind]}"


def _kind(index: pd.Index) -> str:
    return KINDS[pd.api.types.infer_dtype(index, skipna=False)]
