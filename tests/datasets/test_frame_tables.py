from __future__ import annotations

import logging
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import from_frames
from gtc_pyg.loader import GraphInputs
from tests.datasets.frames import RATES, Triples, catalogue, content, log, triples


def by_hand(table: pd.DataFrame, k: int) -> Triples:
    r"""Last of duplicates, four stars, k-core, the last of each user: with loops."""
    last = {}
    for row in table.sort_values("when", kind="stable").itertuples():
        last.pop((row.user, row.item), None)
        last[row.user, row.item] = row.stars
    pairs = [pair for pair, stars in last.items() if stars >= 3]
    graph = nx.k_core(nx.Graph((("user", user), ("item", item)) for user, item in pairs), k)
    pairs = [p for p in pairs if graph.has_edge(("user", p[0]), ("item", p[1]))]
    found = set()
    for user in {user for user, _ in pairs}:
        own = [item for owner, item in pairs if owner == user]
        held_out = {len(own) - 1: "test", len(own) - 2: "val"} if len(own) > 2 else {1: "test"}
        found |= {(user, item, held_out.get(i, "train")) for i, item in enumerate(own)}
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [0, 3])
def test_all_steps_equal_loops(seed: int, k: int) -> None:
    table, items = log(seed=seed), catalogue()
    dataset = from_frames(
        table,
        items,
        {"text": content(items)},
        "leave_last_out",
        rating="stars",
        min_rating=3,
        time="when",
        k_core=k,
    )
    assert triples(dataset) == by_hand(table, k)


def test_order_of_rows_changes_nothing() -> None:
    table, items = log(), catalogue()
    once = from_frames(table, items, {"text": content(items)}, seed=3)
    again = from_frames(
        table.sample(frac=1, random_state=0), items, {"text": content(items)}, seed=3
    )
    assert triples(once) == triples(again)
    assert triples(once) != triples(from_frames(table, items, {"text": content(items)}, seed=4))


def test_weights_are_summed_and_kept_for_training_edges() -> None:
    table, items = log(), catalogue()
    dataset = from_frames(table, items, {"text": content(items)}, weight="plays", min_weight=6)
    summed = table.groupby(["user", "item"])["plays"].sum()
    assert {pair[:2] for pair in triples(dataset)} == set(summed[summed >= 6].index)
    data = dataset[0]
    user, item = data[RATES].edge_index.numpy()
    pairs = zip(dataset.user_ids[user], dataset.item_ids[item], strict=True)
    assert data[RATES].weight.tolist() == [summed[pair] for pair in pairs]
    reverse = data["item", "rev_rates", "user"]
    assert torch.equal(reverse.edge_index.flip(0), data[RATES].edge_index)
    assert torch.equal(reverse.weight, data[RATES].weight)
    assert GraphInputs.from_data(data).edge_weight_dict == {}


def test_given_splits_are_kept() -> None:
    table = log().drop_duplicates(["user", "item"])
    rank = table.groupby("user").cumcount()
    table["part"] = np.select([rank == 1, rank == 2], ["val", "test"], "train")
    dataset = from_frames(table, features={"text": by_item(table)}, split_column="part")
    assert triples(dataset) == set(zip(table["user"], table["item"], table["part"], strict=True))


def by_item(table: pd.DataFrame) -> dict[Any, list[float]]:
    return {name: [float(row), 1.0] for row, name in enumerate(sorted(set(table["item"])))}


def test_users_after_training_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    table, items = log(), catalogue()
    late = pd.DataFrame({"user": ["late"], "item": ["i0"], "when": [pd.Timestamp("2025-01-01")]})
    table = pd.concat([table, late])
    with caplog.at_level(logging.WARNING):
        dataset = from_frames(table, items, {"text": content(items)}, "global_time", time="when")
    assert "late" not in dataset.user_ids
    assert "1 user(s) have nothing in training and are left out" in caplog.text
    last = table.groupby(["user", "item"])["when"].max()
    when = {
        split: {last[user, item] for user, item, own in triples(dataset) if own == split}
        for split in ("train", "val", "test")
    }
    assert max(when["train"]) < min(when["val"]) <= max(when["val"]) < min(when["test"])


@pytest.mark.parametrize("with_items", [True, False])
def test_users_without_a_given_training_are_left_out(with_items: bool, caplog) -> None:
    table = pd.DataFrame({"user": list("aaaabbbbcd"), "item": list("wxyzwxyzww")})
    table["part"] = [*["train", "train", "val", "test"] * 2, "val", "test"]
    items = pd.DataFrame({"item": list("wxyz")}) if with_items else None
    dataset = from_frames(table, items, split_column="part")
    assert dataset.user_ids.tolist() == ["a", "b"] and dataset.num_left_out == 2
    assert "2 user(s) have nothing in training and are left out" in caplog.text
    assert triples(dataset) == set(table[:8].itertuples(index=False, name=None))


def test_untouched_items_are_kept_where_they_have_content() -> None:
    table = pd.DataFrame({"user": list("aaaabbbb"), "item": list("wxyzwxyz")})
    table.loc[8] = ["a", "rare"]
    items = pd.DataFrame({"item": ["rare", *"zyxw", "cold", "bare"], "tag": range(7)})
    text = {name: [1.0, 2.0] for name in ["rare", *"zyxw", "cold"]}
    kept = from_frames(table, items, {"text": text})
    assert kept.item_ids.tolist() == ["rare", *"zyxw", "cold"]  # nothing to rank "bare" by
    core = from_frames(table, items, {"text": text}, k_core=2)
    assert core.item_ids.tolist() == [*"zyxw", "cold"]  # "rare" was touched, but once
    assert core.items is not None
    assert core.items.to_dict("list") == {"item": [*"zyxw", "cold"], "tag": [1, 2, 3, 4, 5]}
    assert from_frames(table, None, {"text": text}).item_ids.tolist() == ["cold", "rare", *"wxyz"]
    assert from_frames(table, None, {"text": text}).items is None


def test_an_item_with_content_alone_is_outside_no_core() -> None:
    table = pd.DataFrame({"user": list("aaabbb"), "item": list("xyzxyz")})
    items = pd.DataFrame({"item": list("wxyz")})
    features = {"text": {"w": [1.0]}}
    assert from_frames(table, items, features, k_core=2).item_ids.tolist() == list("wxyz")


@pytest.mark.parametrize("name", ["min_rating", "min_weight"])
@pytest.mark.parametrize(
    "least", [np.inf, -np.inf, np.nan, np.float32("inf"), torch.tensor(np.nan)]
)
def test_thresholds_are_finite(name: str, least: Any) -> None:
    named = {"min_rating": {"rating": "stars"}, "min_weight": {"weight": "plays"}}[name]
    with pytest.raises(ValueError, match=rf"'{name}' must be a finite number \(got .*(inf|nan)"):
        from_frames(log(), **named, **{name: least})


@pytest.mark.parametrize("make", [np.float32, np.int8, np.array, torch.tensor])
def test_thresholds_may_be_numbers_of_any_library(make: Any) -> None:
    expected = triples(from_frames(log(), rating="stars", min_rating=3, k_core=2))
    given = {"min_rating": make(3), "k_core": np.array(2), "seed": np.int64(0)}
    assert triples(from_frames(log(), rating="stars", **given)) == expected
