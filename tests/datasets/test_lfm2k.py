from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gtc_pyg.datasets import LFM2k


def test_published_counts(real_root: Callable[[str], Path]) -> None:
    dataset = LFM2k(real_root("lfm2k"))
    counts = [
        dataset.view(s)["user", "rates", "item"].edge_label_index.size(1)
        for s in ("train", "val", "test")
    ]
    assert (dataset.num_users, dataset.num_items) == (1858, 1425)
    assert counts == [44327, 4799, 7219]
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    assert list(widths.items()) == [("text", 384), ("vggish", 128), ("whisper", 512), ("image", 64)]
    assert dataset.graph_derived == ("image",)
    assert dataset[0]["item", "similar_image", "item"].edge_index.size(1) == 14250
    tags = dataset.item_tags()
    assert len(tags) == 1425
    assert "trip-hop" in tags[0].split(",")


def test_width_of_graph_features_is_in_the_file_name(lfm2k_root: Path) -> None:
    assert LFM2k(lfm2k_root, spectral_dim=3).features["image"].shape == (12, 3)
    assert LFM2k(lfm2k_root, spectral_dim=4).features["image"].shape == (12, 4)
    assert len(list((lfm2k_root / "processed").iterdir())) == 2


def test_tags_are_empty_where_absent(lfm2k_root: Path) -> None:
    dataset = LFM2k(lfm2k_root, spectral_dim=3)
    with pytest.raises(FileNotFoundError, match=r"items\.tsv"):
        dataset.item_tags()
    (lfm2k_root / "raw" / "items.tsv").write_text("itemID\tartistID\ttags\n2\t7\trock,pop\n")
    assert dataset.item_tags() == ["", "", "rock,pop", *[""] * 9]


def test_items_are_their_tags_where_there_is_such_a_file(lfm2k_root: Path) -> None:
    dataset = LFM2k(lfm2k_root, spectral_dim=3)
    assert dataset.items is None
    (lfm2k_root / "raw" / "items.tsv").write_text("itemID\tartistID\ttags\n2\t7\trock,pop\n")
    assert dataset.items is not None
    assert dataset.items["item"].tolist() == list(range(12))
    assert dataset.items["tags"].tolist() == dataset.item_tags()
    assert dataset.items is dataset.items  # read once
