from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gtc_pyg.datasets import from_frames
from gtc_pyg.loader import GraphInputs
from gtc_pyg.models import GTC, ContentFilter
from gtc_pyg.transforms import ItemKNNGraph
from tests.datasets.frames import catalogue, content, log, triples


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


def test_items_without_a_modality_are_marked_and_can_be_modelled() -> None:
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
    model = GTC(
        dataset.num_users,
        dataset.num_items,
        widths,
        ContentFilter(widths, incomplete=dataset.incomplete),
    )
    inputs = GraphInputs.from_data(data)
    model.prepare(inputs.edge_index_dict, inputs.edge_weight_dict)
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
