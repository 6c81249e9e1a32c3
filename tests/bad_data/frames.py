r"""Tables for ``from_frames``, and arguments for ``PlantedPreferences``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from gtc_pyg.datasets import PlantedPreferences, from_frames
from tests.bad_data.case import Case, nothing


def sound() -> dict[str, Any]:
    r"""Arguments that pass: three users, six items, in the shape that each case spoils."""
    table = pd.DataFrame({"user": np.repeat([7, 8, 9], 5), "item": list("abcdebcdefabcdf")})
    table["stars"], table["when"], table["part"] = 4.0, np.arange(15), "train"
    table.loc[[3, 8], "part"], table.loc[[4, 14], "part"] = "val", "test"
    items = pd.DataFrame({"item": list("abcdef")})
    return {"interactions": table, "items": items, "features": {"text": np.ones((6, 2))}}


def cell(column: str, row: int, value: Any, **more: Any) -> dict[str, Any]:
    r"""One entry of the interactions is another."""
    table = sound()["interactions"].astype({column: object})
    table.at[row, column] = value
    return {"interactions": table, **more}


def col(**columns: Any) -> dict[str, Any]:
    return {"interactions": sound()["interactions"].assign(**columns)}


def text(value: Any, **more: Any) -> dict[str, Any]:
    return {"features": {"text": value}, **more}


def frame(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame(columns)


TABLE = sound()["interactions"]
ALL = {name: [1.0] for name in "abcdef"}
TEXT, ITEMS, LOG = "features['text']", "'items'", "'interactions'"
USER, ITEM = f"{LOG}, column 'user'", f"{LOG}, column 'item'"
ONES, EYE, PEAR = np.ones((6, 2)), np.eye(6), "pear \N{PEAR}\n"
TWO = frame(item=list("abcdef"), x=1.0).set_axis(["item", "item"], axis=1)
SKUS = frame(sku=list("abcdef"), x=1.0, y=2.0)
NUMBERS = {
    "interactions": TABLE.assign(item=TABLE["item"].map(ord)),
    "items": None,
    "features": {"text": frame(sku=[97, 98, 99, 100, 101, 102], x=1.0)},
}
PARTS = {"split_column": "part"}
UNTRAINED = {**col(part=["train"] * 10 + ["test"] * 5), **PARTS}
LEVELS = pd.MultiIndex.from_product([["a", "b", "c"], [1, 2]])
BY_TIME = {"split": "global_time", "time": "when"}
DATES = {**col(when="31.01.2025"), **BY_TIME}
ROW, CHOOSE = "{}, row {} (from 0)", "did you mean 'leave_last_out'"

CALLS: list[tuple[dict[str, Any], str, str, str]] = [
    # what is wrong, where, value, remedy
    ({"interactions": {"user": [1]}}, LOG, "got dict", "must be a pandas.DataFrame"),
    ({"items": [1]}, ITEMS, "got list", "must be a pandas.DataFrame"),
    ({"user": "usr"}, LOG, "no column 'usr'", "did you mean 'user'?; the argument 'user' names it"),
    (
        {"time": "where"},
        LOG,
        "no column 'where'",
        "did you mean 'when'?; the argument 'time' names",
    ),
    ({"item": "user"}, "'user' and 'item'", "got 'user' twice", "must name two columns"),
    ({"items": frame(name=["a"])}, ITEMS, "no column 'item'", "the argument 'item' names it"),
    ({"interactions": pd.DataFrame()}, LOG, "it has []", "the argument 'user' names it"),
    ({"interactions": TABLE[:0]}, LOG, "0 rows", "expected at least one"),
    ({"interactions": TABLE[["user", "user", "item"]]}, LOG, "2 columns 'user'", "expected one"),
    (cell("user", 2, None), ROW.format(USER, 2), "(None), 1 in all", "drop these rows, or give"),
    (cell("item", 3, " "), ROW.format(ITEM, 3), "blank (' '), 1 in all", "drop these rows"),
    (cell("item", 4, np.nan), ROW.format(ITEM, 4), "(nan), 1 in all", "drop these rows, or give"),
    (cell("user", 2, "eve"), USER, "mixed types, such as 7 and 'eve'", "astype(str) makes strings"),
    (cell("item", 0, 3), ITEM, "mixed types, such as 3 and 'b'", "astype(str) makes strings of"),
    (cell("item", 0, 3.5), ITEM, "such as 3.5 and 'b'", "astype(str) makes strings of all"),
    (cell("item", 0, ("a", 1)), ITEM, "such as ('a', 1) and 'b'", "astype(str) makes strings of"),
    (cell("user", 1, 10**30), ROW.format(USER, 1), str(10**30), ".astype(str) makes ids of any"),
    (col(user=TABLE["user"] + 0.5), USER, "floating, such as 7.5", ".astype(str) makes such ids"),
    (col(user=TABLE["user"] + 2.0**53), USER, "9007199254741000.0", "read the file with dtype=str"),
    (col(user=True), USER, "boolean, such as True", ".astype(str) makes such ids"),
    (col(item=b"a"), ITEM, "bytes, such as b'a'", ".str.decode('utf-8') makes"),
    (col(item=pd.Timestamp(0)), ITEM, "datetime64, such as", ".astype(str) makes such ids"),
    (cell("item", 0, "x" * 10**6), LOG, "(1,000,002 characters)", "add their rows to 'items'"),
    (cell("item", 0, PEAR), LOG, repr(PEAR), "add their rows to 'items'"),
    (cell("item", 0, "a\r"), LOG, r"'a\r'", "add their rows to 'items'"),
    ({"rating": "stars"}, "'rating' ('stars')", "does nothing without 'min_rating'", "the least"),
    ({"min_rating": 3}, "'min_rating' (3)", "needs 'rating'", "must name the column of ratings"),
    ({"min_weight": 3}, "'min_weight' (3)", "needs 'weight'", "must name the column of weights"),
    ({"rating": "stars", "min_rating": "4"}, "'min_rating'", "got '4'", "must be a finite number"),
    ({"rating": "stars", "min_rating": 5}, "'min_rating'", "the largest rating is 4", "lower it"),
    ({"rating": "item", "min_rating": 5}, ITEM, "string, such as ['a']", "pandas.to_numeric makes"),
    (
        cell("stars", 6, np.inf, rating="stars", min_rating=1),
        ROW.format(f"{LOG}, column 'stars'", 6),
        "inf",
        "expected a finite number; drop such rows",
    ),
    (cell("stars", 1, 0, weight="stars"), "row 1 (from 0)", "0.0", "expected a positive finite"),
    (cell("stars", 1, -2, weight="stars"), "row 1 (from 0)", "-2.0", "expected a positive finite"),
    ({"k_core": 6}, "'k_core'", "none of 15 interactions is left", "lower it"),
    ({"k_core": -1}, "'k_core'", "got -1", "must be an integer, at least 0"),
    ({"k_core": "5"}, "'k_core'", "got '5'", "must be an integer, at least 0"),
    ({"seed": -1}, "'seed'", "got -1", "must be an integer, at least 0"),
    ({"split": "leave-last-out"}, "'split'", "got 'leave-last-out'", f"{CHOOSE}?; a column of"),
    (
        {"split": "global_time"},
        "'split' is 'global_time'",
        "got None",
        "'time' must name the column",
    ),
    (
        {**BY_TIME, "time": "item"},
        ITEM,
        "got str, such as 'a'",
        "pandas.to_datetime makes datetimes",
    ),
    (DATES, "column 'when'", "'31.01.2025'", "format='ISO8601' of such as '2025-01-31', else"),
    (cell("when", 1, "2020", time="when"), "column 'when'", "object, such as 0", "pandas.to_datet"),
    (col(when=pd.NaT) | {"time": "when"}, "column 'when', row 0", "15 in all", "drop these rows"),
    ({"ratios": (0.8, 0.1, 0.2)}, "'ratios'", "which sum to 1.1", "must be three positive shares"),
    ({"ratios": (0.8, 0.2)}, "'ratios'", "got (0.8, 0.2)", "must be three positive shares"),
    ({"ratios": 0.8}, "'ratios'", "got 0.8", "must be three positive shares"),
    ({"ratios": ("a", "b", "c")}, "'ratios'", "got ('a', 'b', 'c')", "three positive shares"),
    (cell("part", 2, "valid", **PARTS), "row 2 (from 0)", "'valid'", "expected 'train', 'val' or"),
    (
        cell("part", 2, np.nan, **PARTS),
        "row 2 (from 0)",
        "nan",
        "expected 'train', 'val' or 'test'",
    ),
    (UNTRAINED, "'split_column' 'part'", "none is in 'val'", "expected at least one; more"),
    (cell("item", 3, "c", **PARTS), LOG, "user 7 with item 'c'", "(a leak), expected in one: drop"),
    ({**col(part="train"), **PARTS}, "'part'", "none is in 'val'", "expected at least one; more"),
    (
        {"interactions": TABLE.drop_duplicates("user")},
        "'split'",
        "none is in 'val'",
        "at least one",
    ),
    ({"items": sound()["items"][:4]}, LOG, "such as 'e'", "add their rows to 'items', or drop"),
    ({"items": frame(item=list("abcdea"))}, ITEMS, "item 'a' twice", "drop_duplicates('item')"),
    (
        {"items": frame(item=range(6))},
        ITEMS,
        "integers such as 0",
        "astype(str) or astype('int64')",
    ),
    ({"features": ONES}, "'features'", "got ndarray", "must map the names of modalities"),
    ({"features": {"my text": ONES}}, "features['my text']", "my text", "must be a word such as"),
    ({"items": None}, TEXT, "got None", "give 'items', or a DataFrame, Series or dict by item id"),
    (text(np.ones((5, 2))), TEXT, "5 rows, 'items' has 6", "expected one row per item"),
    (text(np.ones(6)), TEXT, "got [6]", "must be [n, F], one row per item"),
    (text(np.full((6, 2), "x")), TEXT, "dtype <U1", "must hold numbers, [n, F]"),
    (text([[1.0], [2.0, 3.0]]), TEXT, "row 1: shape [2]", "expected a vector as long as"),
    (text(EYE * 1e39), f"{TEXT}, row 0, column 0", "1e+39", "expected finite content (within flo"),
    (
        text(torch.full((6, 2), torch.nan)),
        f"{TEXT}, row 0",
        "nan",
        "items that lack it are left out",
    ),
    (text(ALL | {"g": [1.0]}), TEXT, "such as 'g'", "add their rows to 'items', or leave them out"),
    (text(ALL | {"b": [1.0, 2.0]}), f"{TEXT}, item 'b'", "[2]", "a vector as long as that of the"),
    (text(ALL | {"b": [np.inf]}), f"{TEXT}, row 1 (item 'b')", "inf", "expected finite content"),
    (text({}), TEXT, "[0, 0]", "must be [n, F], one row per item"),
    (text({3: [1.0]}), TEXT, "integers such as 3", "expected ids of one type: astype(str)"),
    (text({3: [1.0]}, items=None), TEXT, "integers such as 3", "expected ids of one type: astype"),
    (text(frame(item=["a", "a"], x=1.0)), TEXT, "item 'a' twice", "expected once: one row"),
    (text(TWO), TEXT, "2 columns 'item'", "expected one"),
    (text(SKUS), TEXT, "a column 'sku' (such as 'a')", "rename(columns={'sku': 'item'})"),
    (
        text(SKUS, items=None),
        TEXT,
        "a column 'sku' (such as 'a')",
        "rename(columns={'sku': 'item'})",
    ),
    (NUMBERS, TEXT, "a column 'sku' (such as 97)", "rename(columns={'sku': 'item'})"),
    (text(frame(Item=list("abcdef"), x=1.0)), TEXT, "no column 'item'", "did you mean 'Item'?"),
    (text(frame(x=np.ones(6)).set_index(LEVELS)), TEXT, "2 levels", "expected one id for each row"),
    (text(frame(item=list("abcdef"), x="1,5")), TEXT, "'1,5'", "must hold numbers, [n, F]"),
    (
        {
            "interactions": frame(user=list("aaaabbbba"), item=list("wxyzwxyzr")),
            "items": None,
            "features": {"text": {name: [1.0] for name in "wxyz"}, "image": {"r": [1.0]}},
            "k_core": 2,
        },
        "features['image']",
        "none of the 4 items",
        "leave the modality out, or lower 'k_core'",
    ),
]
PLANTED: list[tuple[str, Any, str]] = [
    ("num_users", 0, "at least 1"),
    ("num_items", 5, "at least 20"),
    ("num_blocks", 0, "at least 1"),
    ("block_dim", 0, "at least 1"),
    ("num_clusters", 0, "at least 1"),
    ("modalities", (), "one or more different names"),
    ("modalities", ("a", "a"), "one or more different names"),
    ("mean_degree", 5, "must be 6 to 75"),
    ("mean_degree", 200, "must be 6 to 75"),
    ("noise", 1.0, "must be in [0, 1)"),
    ("minor_weight", -0.1, "must be in [0, 1)"),
    ("sharpness", -1.0, "must be non-negative and finite"),
    ("seed", -1, "must be at least 0"),
]


def call(change: dict[str, Any], root: Path) -> object:
    return from_frames(**sound() | change)


def planted(change: dict[str, Any], root: Path) -> object:
    return PlantedPreferences(**change)


CASES = [
    Case(
        f"frames {number}: {where} {value}",
        nothing,
        partial(call, change),
        where,
        value,
        remedy,
        TypeError if "pandas.DataFrame" in remedy else ValueError,
    )
    for number, (change, where, value, remedy) in enumerate(CALLS)
] + [
    Case(
        f"planted: {name} {value}",
        nothing,
        partial(planted, {name: value}),
        name,
        f"got {value}",
        remedy,
    )
    for name, value, remedy in PLANTED
]
