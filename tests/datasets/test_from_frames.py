from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import InteractionDataset, from_frames
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GTC
from gtc_pyg.transforms import ItemKNNGraph

RATES = ("user", "rates", "item")
Triples = set[tuple[Any, Any, str]]


def log(num_rows: int = 400, seed: int = 0) -> pd.DataFrame:
    r"""Ratings and plays of 25 users and 30 items, with repetitions and equal times."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": [f"u{user}" for user in rng.integers(25, size=num_rows)],
            "item": [f"i{item}" for item in (30 * rng.random(num_rows) ** 2).astype(int)],
            "stars": rng.integers(1, 6, size=num_rows),
            "plays": rng.integers(1, 9, size=num_rows),
            "when": pd.Timestamp("2024-01-01")
            + pd.to_timedelta(rng.integers(60, size=num_rows), "D"),
        }
    )


def catalogue(size: int = 33) -> pd.DataFrame:
    names = [f"i{item}" for item in np.random.default_rng(1).permutation(size)]
    return pd.DataFrame({"item": names, "title": [f"the {name}" for name in names]})


def content(items: pd.DataFrame, width: int = 3) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((len(items), width))


def triples(dataset: InteractionDataset) -> Triples:
    r"""(user, item, split) of all interactions, in the ids of the tables."""
    found = set()
    for split in ("train", "val", "test"):
        user, item = dataset.view(split)[RATES].edge_label_index.numpy()
        pairs = zip(dataset.user_ids[user], dataset.item_ids[item], strict=True)
        found |= {(*pair, split) for pair in pairs}
    return found


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


@pytest.mark.parametrize(
    "dtype", ["int64", "int32", "uint8", "Int64", "str", "string", object, "category"]
)
@pytest.mark.parametrize("with_items", [True, False])
def test_ids_and_content_come_back_as_they_went_in(dtype: Any, with_items: bool) -> None:
    table, items = log(), catalogue()
    text = pd.Series(list(content(items)), index=items["item"])
    if dtype not in ("str", "string", object, "category"):
        table, items = (
            frame.assign(
                **{c: frame[c].str[1:].astype(dtype) for c in ("user", "item") if c in frame}
            )
            for frame in (table, items)
        )
        text.index = text.index.str[1:].astype(dtype)
    else:
        for frame in (table, items):
            frame["item"] = frame["item"].astype(dtype)
        table["user"] = table["user"].astype(dtype)
        text.index = text.index.astype(dtype)
    dataset = from_frames(table, items if with_items else None, {"text": text})
    expected = "str" if dtype == "category" else dtype
    assert dataset.user_ids.dtype == dataset.item_ids.dtype == expected
    assert dataset.user_ids.tolist() == sorted(set(table["user"]))
    assert dataset.item_ids.tolist() == (
        items["item"].tolist() if with_items else sorted(text.index)
    )
    assert {pair[:2] for pair in triples(dataset)} == set(
        zip(table["user"], table["item"], strict=True)
    )
    wanted = np.stack([text[name] for name in dataset.item_ids]).astype(np.float32)
    np.testing.assert_array_equal(dataset.features["text"], wanted)


def test_order_of_rows_changes_nothing() -> None:
    table, items = log(), catalogue()
    once = from_frames(table, items, {"text": content(items)}, seed=3)
    again = from_frames(
        table.sample(frac=1, random_state=0), items, {"text": content(items)}, seed=3
    )
    assert triples(once) == triples(again)
    assert triples(once) != triples(from_frames(table, items, {"text": content(items)}, seed=4))


def test_content_without_ids_has_the_rows_of_the_items() -> None:
    table, items = log(), catalogue()
    x = content(items)
    by_row = from_frames(table, items, {"text": torch.from_numpy(x)}).features["text"]
    frame = pd.DataFrame(x, index=items["item"]).sample(frac=1, random_state=1)
    by_index = from_frames(table, items.set_index("item"), {"text": frame}).features["text"]
    by_column = from_frames(table, items, {"text": frame.reset_index()}).features["text"]
    by_dict = from_frames(table, items, {"text": dict(zip(items["item"], x, strict=True))})
    assert by_row.dtype == torch.float32
    assert torch.equal(by_row, torch.from_numpy(x).float())
    for other in (by_index, by_column, by_dict.features["text"]):
        assert torch.equal(by_row, other)


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
    assert "1 users came after the training split and are left out" in caplog.text
    last = table.groupby(["user", "item"])["when"].max()
    when = {
        split: {last[user, item] for user, item, own in triples(dataset) if own == split}
        for split in ("train", "val", "test")
    }
    assert max(when["train"]) < min(when["val"]) <= max(when["val"]) < min(when["test"])


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


def test_items_without_a_modality_are_marked_and_a_model_takes_them() -> None:
    table, items = log(), catalogue()
    image = {name: [1.0, 2.0] for name in items["item"][:20]}
    features = {"text": content(items), "image": image}
    dataset = from_frames(table, items, features, pre_transform=ItemKNNGraph(k=3))
    data = dataset[0]
    assert dataset.modalities == ("text", "image")
    assert dataset.incomplete == ("image",)
    assert "has_text" not in data["item"]
    assert data["item"].has_image.tolist() == [True] * 20 + [False] * 13
    assert (data["item"].x_image[20:] == 0).all()
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    model = GTC(dataset.num_users, dataset.num_items, widths, incomplete=dataset.incomplete)
    inputs = GraphInputs.from_data(data)
    for emb in model(inputs.features, inputs.edge_index_dict, inputs.edge_weight_dict):
        assert emb.isfinite().all()


def test_tables_stay_as_they_were() -> None:
    table, items = log(), catalogue()
    text = pd.DataFrame(content(items), index=items["item"])
    before = [frame.copy() for frame in (table, items, text)]
    dataset = from_frames(table, items, {"text": text}, time="when", weight="plays", k_core=2)
    dataset[0]["item"].x_text.zero_()
    for frame, copy in zip((table, items, text), before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


def test_an_item_with_content_alone_is_outside_no_core() -> None:
    table = pd.DataFrame({"user": list("aaabbb"), "item": list("xyzxyz")})
    items = pd.DataFrame({"item": list("wxyz")})
    features = {"text": {"w": [1.0]}}
    assert from_frames(table, items, features, k_core=2).item_ids.tolist() == list("wxyz")


def test_the_core_packages_suffice_until_tables_are_read() -> None:
    code = """
import sys
sys.modules["pandas"] = None
import gtc_pyg.datasets as datasets
try:
    datasets.from_frames(None)
except ModuleNotFoundError as error:
    print(error)
try:
    datasets.PlantedPreferences(20, 20, mean_degree=6).user_ids
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.count('pip install "gtc-pyg[data]"') == 2, done.stderr


def twelve(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values) for name, values in columns.items()})


def test_numbers_of_all_items_under_another_name_are_ids_and_not_content():
    pairs = twelve(user=np.repeat(np.arange(4), 12), item=list(range(12)) * 4)
    content = twelve(sku=range(11, -1, -1), x=np.linspace(0, 1, 12))
    with pytest.raises(ValueError, match=r"a column 'sku' .* rename_axis\('item'\)"):
        from_frames(pairs, features={"text": content})
    dataset = from_frames(pairs, features={"text": content.rename_axis("item")})
    assert dataset.features["text"][:, 0].tolist() == list(range(11, -1, -1))


def test_numbers_kept_as_objects_are_content():
    pairs = twelve(user=np.repeat(np.arange(4), 12), item=list(range(12)) * 4)
    content = twelve(x=np.linspace(0, 1, 12), y=np.arange(12) % 3).astype(object)
    found = from_frames(pairs, features={"text": content}).features["text"]
    assert found[:, 1].tolist() == [float(i % 3) for i in range(12)]


def test_an_id_with_spaces_around_it_is_told():
    pairs = twelve(user=["a", "a", "a", "b", "b ", "b"], item=list("xyzxyz"))
    with pytest.warns(UserWarning, match=r"row 4 \(from 0\): the id 'b ' has spaces around it, 1"):
        from_frames(pairs, features={"text": {name: [1.0] for name in "xyz"}})
