from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from gtc_pyg.datasets.writing import told
from gtc_pyg.evaluation import GroupedEdges
from gtc_pyg.functional import normalize_rows, whole_number
from gtc_pyg.recommend.best_items import Candidates, best_items
from gtc_pyg.recommend.ids import Ids
from gtc_pyg.recommend.interactions import pairs_of
from gtc_pyg.recommend.quality import list_quality
from gtc_pyg.recommend.state import Field, Stateful, reader
from gtc_pyg.recommend.streaming import checked_ending, write_lists

USERS_AT_ONCE = 4096


class Lists(Stateful):
    r"""Lists of items, from embeddings of users and items and what is known of them.

    Scores are sums of double-precision products, so that lists and scores are the same whatever
    the number of threads and users at a time; of equal scores the item of the lower row is first.

    It may be read while another thread adds users or items: each call answers from the state that
    it found, the old one or the new one.

    Args:
        user_emb: ``[U, K]``.
        item_emb: ``[I, K]``; the score of a pair is the inner product.
        users: The users' ids by row.
        items: The items' ids by row.
        table: What there is to show of the items, by row.
        seen: Known interactions by row ``[2, E]``.
        has_bias: Whether the last column of ``item_emb`` is the items' bias, which says nothing of
            whether items are alike.
    """

    user_emb = Field[Tensor]()
    item_emb = Field[Tensor]()
    users = Field[Ids]()
    items = Field[Ids]()
    table = Field[pd.DataFrame | None]()
    seen = Field[Tensor]()
    _seen = Field[GroupedEdges]()

    def __init__(
        self,
        user_emb: Tensor,
        item_emb: Tensor,
        users: Ids,
        items: Ids,
        table: pd.DataFrame | None,
        seen: Tensor,
        has_bias: bool,
    ) -> None:
        self._change(
            user_emb=user_emb,
            item_emb=item_emb,
            users=users,
            items=items,
            table=None if table is None else _without_ids(table, items.index),
            seen=seen,
            _seen=GroupedEdges(seen, len(users)),
        )
        self._has_bias = has_bias

    @property
    def num_users(self) -> int:
        r"""The number of users, those added after training included."""
        return len(self.users)

    @property
    def num_items(self) -> int:
        r"""The number of items, those added after training included."""
        return len(self.items)

    @reader
    def history(self, user: Any) -> pd.DataFrame:
        r"""The items that a user is known to have interacted with.

        Args:
            user: Their id.

        Returns:
            A table with the column ``item`` and those of the items' table, in the order of rows.

        Raises:
            ValueError: For an unknown user.
        """
        return self.describe(self.items[self._seen(self.users.row(user))[1].sort().values])

    @reader
    def describe(self, items: Any = None) -> pd.DataFrame:
        r"""What there is to show of some items.

        Args:
            items: One id, or several; all where ``None``.

        Returns:
            A table with the column ``item`` and those of the items' table.

        Raises:
            ValueError: For an unknown item.
        """
        rows = self.items.rows(items)
        out = pd.DataFrame({"item": self.items[rows]})
        if self.table is None:
            return out
        others = self.table.iloc[rows.numpy()]
        return pd.concat([out, others.reset_index(drop=True)], axis=1)

    @reader
    def recommend(
        self,
        users: Any = None,
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Any = None,
        exclude: Any = None,
    ) -> pd.DataFrame:
        r"""The best items of each user.

        Args:
            users: One id, or several; all users where ``None``.
            k: Length of the lists; shorter where a user has fewer candidates.
            exclude_seen: Whether items that the user has interacted with are left out.
            candidates: The items to choose from; all where ``None``.
            exclude: Items to leave out for everybody, or a mapping of users to theirs.

        Returns:
            A table with the columns ``user``, ``rank`` (from 1), ``item`` and ``score``, users in
            the order they were asked for.

        Raises:
            ValueError: For an unknown user or item, or ``k`` less than 1.
        """
        rows = self.users.rows(users)
        chosen = self._candidates(candidates, exclude)
        seen = self._seen if exclude_seen else None
        scores, items = self._rank(rows, k, chosen, seen)
        return self._as_table(self.users[rows], scores, items)

    @reader
    def write(
        self,
        path: str | os.PathLike[str],
        users: Any = None,
        k: int = 10,
        exclude_seen: bool = True,
        candidates: Any = None,
        exclude: Any = None,
        users_at_once: int = USERS_AT_ONCE,
        progress: bool = True,
    ) -> Path:
        r"""Streams :meth:`recommend` into a file, some users at a time.

        Finished parts are kept beside the file, in ``<path>.<request>.parts``, until all are there:
        a call after an interruption goes on with the rest, if it asks for the same of the same
        recommender. What another request left is not touched.

        Args:
            path: Ends in ``.parquet`` or ``.csv``.
            users: As in :meth:`recommend`.
            k: As in :meth:`recommend`.
            exclude_seen: As in :meth:`recommend`.
            candidates: As in :meth:`recommend`.
            exclude: As in :meth:`recommend`.
            users_at_once: Of one part.
            progress: Whether to show a progress bar.

        Returns:
            The path.

        Raises:
            ValueError: For another ending, and as :meth:`recommend`.
            RuntimeError: Where another process writes the same lists to the same path.
        """
        path, k = checked_ending(Path(path)), whole_number(1, k=k)
        users_at_once = whole_number(1, users_at_once=users_at_once)
        rows = self.users.rows(users)
        chosen = self._candidates(candidates, exclude)
        seen = self._seen if exclude_seen else None
        asked = [k, exclude_seen, users_at_once, *chosen.describe(), rows, self.seen]

        def lists(first: int) -> pd.DataFrame:
            some = rows[first : first + users_at_once]
            return self._as_table(self.users[some], *self._rank(some, k, chosen, seen))

        starts = range(0, rows.numel(), users_at_once)
        with tqdm(total=rows.numel(), unit=" users", disable=not progress) as bar, told(path):
            return write_lists(path, lists, starts, [*asked, *self._identity()], bar.update)

    @reader
    def similar_items(self, item: Any, k: int = 10) -> pd.DataFrame:
        r"""The items whose embeddings have the highest cosines with an item's.

        Args:
            item: Its id.
            k: How many.

        Returns:
            A table with the columns ``rank``, ``item`` and ``score`` (the cosine).

        Raises:
            ValueError: For an unknown item.
        """
        row = self.items.row(item)
        emb = self.item_emb[:, :-1] if self._has_bias else self.item_emb
        emb = normalize_rows(emb)
        itself = torch.stack([torch.zeros_like(row), row])
        scores, items = best_items(emb[row], emb, k, Candidates(), itself)
        return self._as_table(None, scores, items)

    @reader
    def quality(self, k: int = 10, users: Any = None, category: str | None = None) -> pd.Series:
        r"""How popular, how varied and how personal the lists are, by PyG's metrics.

        Args:
            k: Length of the lists.
            users: As in :meth:`recommend`.
            category: Column of the items' table that says what kind an item is, for ``Diversity``.

        Returns:
            ``AveragePopularity@k`` (seen interactions of a listed item), ``Coverage@k`` (share of
            the items that are in a list), ``Personalization@k`` and, with ``category``,
            ``Diversity@k``.

        Raises:
            ValueError: For an unknown column, or where no user has ``k`` candidates.
        """
        rows, k = self.users.rows(users), whole_number(1, k=k)
        items = self._rank(rows, k, Candidates(), self._seen)[1]
        popularity = torch.bincount(self.seen[1], minlength=self.num_items)
        codes = None
        if category is not None:
            columns = [] if self.table is None else list(self.table.columns)
            if self.table is None or category not in columns:
                raise ValueError(
                    f"'category' must be one of the items' columns {columns} (got {category!r})"
                )
            codes = torch.from_numpy(pd.factorize(self.table[category])[0]).long()
        return pd.Series(list_quality(items, k, popularity, codes))

    def _identity(self) -> list[Any]:
        ids = (list(map(repr, index.tolist())) for index in (self.users.index, self.items.index))
        return [self.user_emb, self.item_emb, *ids]

    def _candidates(self, candidates: Any, exclude: Any) -> Candidates:
        only = None if candidates is None else self.items.rows(candidates).unique()
        if only is not None and only.numel() == 0:
            raise ValueError("'candidates' must hold at least one item (got none)")
        if exclude is None:
            return Candidates(only)
        if isinstance(exclude, Mapping | pd.DataFrame):
            pairs = pairs_of(exclude, self.users, self.items)
            return Candidates(only, of_user=GroupedEdges(pairs, self.num_users))
        return Candidates(only, never=self.items.rows(exclude).unique())

    def _rank(
        self,
        rows: Tensor,
        k: int,
        chosen: Candidates,
        seen: GroupedEdges | None,
        user_emb: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        user_emb, found = self.user_emb if user_emb is None else user_emb, []
        for some in rows.split(USERS_AT_ONCE):
            links = chosen.links(some)
            if seen is not None:
                links = torch.cat([links, torch.stack(seen(some))], dim=1)
            found.append(best_items(user_emb[some], self.item_emb, k, chosen, links))
        if not found:
            return torch.empty(0, 0, dtype=torch.double), torch.empty(0, 0, dtype=torch.long)
        scores, items = zip(*found, strict=True)
        return torch.cat(scores), torch.cat(items)

    def _as_table(self, users: pd.Index | None, scores: Tensor, items: Tensor) -> pd.DataFrame:
        there = items >= 0
        row, rank = there.nonzero(as_tuple=True)
        columns: dict[str, Any] = {} if users is None else {"user": users[row.numpy()]}
        columns |= {"rank": (rank + 1).numpy()}
        columns |= {"item": self.items[items[there]], "score": scores[there].numpy()}
        return pd.DataFrame(columns)


def _without_ids(table: pd.DataFrame, ids: pd.Index) -> pd.DataFrame:
    """What there is to show: no column of the ids, and none by the name that they get."""
    table = table.loc[:, ~table.columns.duplicated()]
    again = [name for name in table.columns if pd.Index(table[name]).equals(ids)]
    out = table.drop(columns=again).reset_index(drop=True)
    return out.rename(columns={"item": "item (column)"})


def below(table: pd.DataFrame, more: pd.DataFrame | None, ids: pd.Index) -> pd.DataFrame:
    r"""A table with the rows of other items below: its columns, empty where the others lack them.

    Args:
        table: What there is.
        more: Further rows; :obj:`None` where there is nothing to show.
        ids: Of the further items.

    Raises:
        ValueError: For columns that the table lacks and that are not the ids.
    """
    more = pd.DataFrame(index=range(len(ids))) if more is None else more
    own = [name for name in more.columns if pd.Index(more[name]).equals(ids)]
    if unknown := [name for name in more.columns if name not in [*table.columns, *own]]:
        raise ValueError(
            f"'items' has the columns {unknown}, expected some of {list(table.columns)} and ids in "
            "the order of 'ids'"
        )
    out = pd.concat([table, more.reindex(columns=table.columns)], ignore_index=True)
    for name in table.columns:
        if pd.api.types.is_integer_dtype(table[name].dtype) and out[name].isna().any():
            out[name] = out[name].astype("Int64")  # 1999 stays what it is
    return out
