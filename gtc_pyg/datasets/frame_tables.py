r"""From pandas tables to interactions by row; see :func:`gtc_pyg.datasets.from_frames`."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gtc_pyg.datasets.exact_ids import (
    appended,
    check_same_kind,
    difference,
    lookup,
    rows_of,
    show,
)
from gtc_pyg.datasets.frame_columns import (
    as_pandas,
    column,
    hint,
    ids,
    numbers,
    split_labels,
    times,
)
from gtc_pyg.datasets.frame_content import Content, read_content
from gtc_pyg.datasets.interaction_tables import SPLITS, InteractionTables
from gtc_pyg.datasets.splits import (
    LEFT_OUT,
    TRAIN,
    check_ratios,
    global_time_split,
    leave_last_out_split,
    random_split,
)
from gtc_pyg.transforms.k_core import k_core

logger = logging.getLogger(__name__)

_BY_TIME = ("leave_last_out", "global_time")
_PAIR = ["user", "item"]


@dataclass(frozen=True)
class FrameOptions:
    r"""The arguments of :func:`~gtc_pyg.datasets.from_frames` by the same names."""

    user: str
    item: str
    rating: str | None
    min_rating: float | None
    weight: str | None
    min_weight: float | None
    time: str | None
    split: str
    split_column: str | None
    ratios: Sequence[float]
    seed: int
    k_core: int

    def __post_init__(self) -> None:
        if self.split_column is None and self.split not in ("random", *_BY_TIME):
            raise ValueError(
                f"'split' must be 'random', 'leave_last_out' or 'global_time' (got {self.split!r})"
                f"{hint(self.split, ('random', *_BY_TIME))}; a column of 'train', 'val' and 'test' "
                "is named by 'split_column'"
            )
        if self.split_column is None and self.split in _BY_TIME and self.time is None:
            raise ValueError(
                f"'split' is {self.split!r}: 'time' must name the column of times (got None)"
            )
        if self.user == self.item:
            raise ValueError(f"'user' and 'item' must name two columns (got {self.user!r} twice)")
        for name in ("min_rating", "min_weight", "seed", "k_core"):  # arrays of no dimension, too
            if getattr(value := getattr(self, name), "ndim", None) == 0:
                object.__setattr__(self, name, value.item())
        for name, least in (("rating", "min_rating"), ("weight", "min_weight")):
            value = getattr(self, least)
            if value is not None and getattr(self, name) is None:
                raise ValueError(
                    f"{least!r} ({value!r}) needs {name!r}, which must name the column of {name}s"
                )
            if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
                raise ValueError(f"{least!r} must be a finite number (got {value!r})")
        for name in ("k_core", "seed"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 0:
                raise ValueError(f"{name!r} must be an integer, at least 0 (got {value!r})")
        if self.rating is not None and self.min_rating is None:
            raise ValueError(
                f"'rating' ({self.rating!r}) does nothing without 'min_rating', the least rating "
                "that is an interaction"
            )
        check_ratios(self.ratios)


class ReadFrames(NamedTuple):
    r"""Interactions by row, and whose rows they are."""

    tables: InteractionTables
    user_ids: pd.Index
    item_ids: pd.Index
    items: pd.DataFrame | None
    columns: dict[str, tuple[str, ...]]
    num_left_out: int


def read_frames(
    interactions: pd.DataFrame,
    items: pd.DataFrame | None,
    features: Mapping[str, Any] | None,
    options: FrameOptions,
) -> ReadFrames:
    r"""Everything that :func:`~gtc_pyg.datasets.from_frames` does before there is a graph."""
    interactions, items = as_pandas(interactions), as_pandas(items)
    for name, frame in (("interactions", interactions), ("items", items)):
        if not isinstance(frame, pd.DataFrame) and not (name == "items" and frame is None):
            raise TypeError(f"{name!r} must be a pandas.DataFrame (got {type(frame).__name__})")
    table = None if items is None else _with_ids(items, options.item)
    rows, users, touched = _read_rows(interactions, options)
    known = None if table is None else _known_items(table, touched, options)
    contents = read_content(features, options.item, known, touched)
    candidates = _union(touched, contents) if known is None else known
    rows["item"] = rows_of(touched, candidates)

    rows = _above(_once(rows, users, candidates), options)
    before = _occur(rows, len(candidates))
    rows = _core(rows, len(users), len(candidates), options.k_core)
    dropped = before & ~_occur(rows, len(candidates))
    rows, num_left_out = _label(rows, options)
    content = {name: entry.rows_of(candidates) for name, entry in contents.items()}
    has_any = np.zeros(len(candidates), dtype=bool)
    for _, has in content.values():
        has_any |= has.numpy()
    kept_items = np.flatnonzero(_occur(rows, len(candidates)) | (has_any & ~dropped))
    kept_users, rows["user"] = np.unique(rows["user"], return_inverse=True)
    rows["item"] = np.searchsorted(kept_items, rows["item"])
    logger.info(
        "%d of %d users, %d of %d items and %d interactions are left",
        *(len(kept_users), len(users), len(kept_items), len(candidates), len(rows)),
    )
    return ReadFrames(
        _tables(rows, len(kept_users), content, torch.from_numpy(kept_items)),
        users[kept_users],
        candidates[kept_items],
        None if table is None else table.iloc[kept_items].reset_index(drop=True),
        {name: entry.columns for name, entry in contents.items() if entry.columns},
        num_left_out,
    )


def _with_ids(items: pd.DataFrame, item: str) -> pd.DataFrame:
    return items.reset_index() if item not in items and items.index.name == item else items


def _read_rows(
    interactions: pd.DataFrame, options: FrameOptions
) -> tuple[pd.DataFrame, pd.Index, pd.Index]:
    r"""Numbers of the interactions, the users' ids, and each interaction's item."""

    def named(argument: str) -> tuple[pd.Series, str]:
        name = getattr(options, argument)
        what = f"'interactions', column {name!r}"
        return column(interactions, name, argument, "interactions"), what

    user, item = (ids(*named(argument)) for argument in _PAIR)
    if len(interactions) == 0:
        raise ValueError("'interactions' has 0 rows, expected at least one")
    code, _ = pd.factorize(lookup(user), sort=True)
    users = user[np.unique(code, return_index=True)[1]]
    rows = pd.DataFrame({"user": code.astype(np.int64)})
    if options.rating is not None:
        rows["rating"] = numbers(*named("rating"))
    if options.weight is not None:
        rows["weight"] = numbers(*named("weight"), positive=True)
    if options.time is not None:
        rows["time"] = times(*named("time"))
    if options.split_column is not None:
        rows["label"] = split_labels(*named("split_column"))
    return rows, users, item


def _known_items(table: pd.DataFrame, touched: pd.Index, options: FrameOptions) -> pd.Index:
    known = ids(column(table, options.item, "item", "items"), f"'items', column {options.item!r}")
    if not known.is_unique:
        again = show(known[known.duplicated()][0])
        raise ValueError(
            f"'items' has item {again} twice, expected one row per item: "
            f"drop_duplicates({options.item!r})"
        )
    check_same_kind(touched, "'interactions'", known, "'items'")
    unknown = touched[rows_of(touched, known) < 0].unique()
    if len(unknown):
        raise ValueError(
            f"'interactions' has {len(unknown)} item(s) that 'items' lacks, such as "
            f"{show(unknown[0])}{difference(unknown, known)}; add their rows to 'items', or drop "
            "these interactions"
        )
    return known


def _union(touched: pd.Index, contents: Mapping[str, Content]) -> pd.Index:
    r"""All ids of interactions and content, sorted, in the type of the interactions."""
    found = touched.unique()
    for name, entry in contents.items():
        if entry.ids is not None:
            new = entry.ids[rows_of(entry.ids, found) < 0]
            found = appended(found, new, f"the index of features[{name!r}]")
    return found[np.argsort(lookup(found), kind="stable")]


def _once(rows: pd.DataFrame, users: pd.Index, items: pd.Index) -> pd.DataFrame:
    r"""Every pair once, in the order of time, else of rows."""
    if "time" in rows:
        rows = rows.sort_values("time", kind="stable")
    again = rows.duplicated(_PAIR, keep="last")
    if not again.any():
        return rows
    pairs = rows.groupby(_PAIR, sort=False)
    if "label" in rows:
        parted = (pairs["label"].transform("min") != rows["label"]).to_numpy()
        if parted.any():
            user, item = rows[_PAIR].to_numpy()[parted][0]
            raise ValueError(
                f"'interactions' has user {show(users[user])} with item {show(items[item])} in "
                "more than one split (a leak), expected in one: drop_duplicates keeps one"
            )
    if "weight" in rows:
        rows = rows.assign(weight=pairs["weight"].transform("sum"))
    return rows[~again]


def _above(rows: pd.DataFrame, options: FrameOptions) -> pd.DataFrame:
    for name in ("rating", "weight"):
        least = getattr(options, f"min_{name}")
        if least is not None:
            most = rows[name].max()
            rows = rows[rows[name] >= least]
            if rows.empty:
                raise ValueError(
                    f"'min_{name}' is {least}, and no interaction is left: the largest {name} is "
                    f"{most:g}; lower it"
                )
    return rows


def _core(rows: pd.DataFrame, num_users: int, num_items: int, k: int) -> pd.DataFrame:
    kept = rows[k_core(_edges(rows), num_users, num_items, k).numpy()]
    if kept.empty:
        raise ValueError(
            f"'k_core' is {k}, and none of {len(rows):,} interactions is left: no users and items "
            "have so many among themselves; lower it"
        )
    return kept


def _label(rows: pd.DataFrame, options: FrameOptions) -> tuple[pd.DataFrame, int]:
    r"""The interactions with their split as ``label``, sorted by user and item.

    Users without a training interaction are left out, and counted.
    """
    what = f"'split' {options.split!r}"
    if options.split_column is not None:
        what = f"'split_column' {options.split_column!r}"
        trained = rows["user"][rows["label"] == TRAIN]
        done = rows[rows["user"].isin(trained)]
    elif options.split == "random":
        done = rows.sort_values(_PAIR)
        done["label"] = random_split(done["user"].to_numpy(), options.ratios, options.seed)
    else:
        user, time = rows["user"].to_numpy(), rows["time"].to_numpy()
        if options.split == "leave_last_out":
            label = leave_last_out_split(user, time)
        else:
            label = global_time_split(user, time, options.ratios)
        done = rows.assign(label=label)[label != LEFT_OUT]
    done = done.sort_values(_PAIR)
    left_out = rows["user"].nunique() - done["user"].nunique()
    if left_out:
        logger.warning("%d user(s) have nothing in training and are left out", left_out)
    for index, split in enumerate(SPLITS):
        if not (done["label"] == index).any():
            raise ValueError(
                f"{what}: of {len(rows):,} interactions none is in {split!r}, expected at least "
                "one; more interactions, other 'ratios' or another split are needed"
            )
    return done, left_out


def _tables(
    rows: pd.DataFrame,
    num_users: int,
    content: Mapping[str, tuple[Tensor, Tensor]],
    kept: Tensor,
) -> InteractionTables:
    masks = {name: has[kept] for name, (_, has) in content.items()}
    for name, has in masks.items():
        if not has.any():
            raise ValueError(
                f"features[{name!r}] has content of none of the {kept.numel()} items that are left,"
                " expected of some: leave the modality out, or lower 'k_core'"
            )
    train = rows[rows["label"] == TRAIN]
    weight = None
    if "weight" in rows:
        weight = torch.from_numpy(train["weight"].to_numpy(np.float32, copy=True))
    return InteractionTables(
        {split: _edges(rows[rows["label"] == index]) for index, split in enumerate(SPLITS)},
        num_users,
        {name: x[kept] for name, (x, _) in content.items()},
        masks={name: has for name, has in masks.items() if not has.all()},
        train_weight=weight,
        sources={f"x_{name}": f"features[{name!r}]" for name in content},
        item_rows=kept.numel(),
    )


def _edges(rows: pd.DataFrame) -> Tensor:
    return torch.from_numpy(rows[_PAIR].to_numpy(np.int64, copy=True).T.copy())


def _occur(rows: pd.DataFrame, num_items: int) -> np.ndarray:
    return np.bincount(rows["item"], minlength=num_items) > 0
