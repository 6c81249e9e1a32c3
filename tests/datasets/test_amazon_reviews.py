"""Small files in the publisher's exact raw formats, read back by plain loops."""

from __future__ import annotations

import array
import ast
import gzip
import http.server
import socket
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gtc_pyg.datasets import AmazonReviews, amazon_files, amazon_reviews
from gtc_pyg.experiment import Settings, _features, build_model
from gtc_pyg.transforms import ItemKNNGraph
from gtc_pyg.transforms.text_features import tfidf_embedding
from tests.bad_data.amazon import image as spoil_image
from tests.bad_data.folders import (
    CATEGORY,
    IMAGES,
    ITEMS,
    META,
    RATINGS,
    image,
    metadata,
    ratings,
    write_amazon,
)

RATES = ("user", "rates", "item")
SPLITS = ("train", "val", "test")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_amazon(tmp_path)
    return tmp_path


def pairs(dataset: AmazonReviews, *splits: str) -> list[tuple[str, str]]:
    out = []
    for split in splits or SPLITS:
        edge_index = dataset.view(split)[RATES].edge_label_index
        out += [(dataset.user_ids[u], dataset.item_ids[i]) for u, i in edge_index.t().tolist()]
    return sorted(out)


def core(lines: list[str], k: int) -> list[tuple[str, str]]:
    left = {(user, item) for user, item, _, _ in (line.split(",") for line in lines)}
    while True:
        degree = Counter(x for pair in left for x in pair)
        kept = {pair for pair in left if all(degree[x] >= k for x in pair)}
        if kept == left:
            return sorted(left)
        left = kept


def test_the_five_core_is_split_for_each_user_on_their_own(root: Path) -> None:
    dataset = AmazonReviews(root, CATEGORY)
    expected = core(ratings(), 5)
    assert 0 < len(expected) < len(ratings()) - 1
    assert pairs(dataset) == expected
    assert list(dataset.user_ids) == sorted({user for user, _ in expected})
    assert list(dataset.item_ids) == sorted({item for _, item in expected})
    for split, share in (("val", 0.1), ("test", 0.1)):
        per_user = Counter(user for user, _ in pairs(dataset, split))
        total = Counter(user for user, _ in expected)
        assert all(per_user[user] == max(1, int(share * total[user])) for user in total)


def test_the_order_of_the_lines_does_not_matter_and_the_seed_does(root: Path) -> None:
    first = AmazonReviews(root, CATEGORY)
    lines = (root / "raw" / RATINGS).read_text().splitlines()
    (root / "raw" / RATINGS).write_text("\n".join(lines[::-1]) + "\n")
    again = AmazonReviews(root, CATEGORY)
    other = AmazonReviews(root, CATEGORY, seed=1)
    assert [pairs(again, s) for s in SPLITS] == [pairs(first, s) for s in SPLITS]
    assert torch.equal(again.features["image"], first.features["image"])
    assert pairs(other) == pairs(first)
    assert pairs(other, "test") != pairs(first, "test")


@pytest.mark.parametrize("at_once", [1, 3, 512])
def test_content_is_that_of_the_item(
    root: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon_files, "_IMAGES_AT_ONCE", at_once)
    dataset = AmazonReviews(root, CATEGORY, k_core=2)
    item = dataset[0]["item"]
    for row, asin in enumerate(dataset.item_ids):
        index = ITEMS.index(asin)
        expected = torch.zeros(4096) if index == 3 else torch.tensor(image(index))
        assert torch.equal(item.x_image[row], expected), asin
    lacking = [dataset.item_ids[~item[f"has_{name}"].numpy()] for name in ("image", "text")]
    assert [list(ids) for ids in lacking] == [[ITEMS[3]], ITEMS[8:10]]
    assert dataset.modalities == dataset.incomplete == ("image", "text")
    assert dataset.num_items == 10
    assert dataset.items is not None
    assert dataset.items["title"][1] == 'Case & cover number 1 it\'s "new"'
    assert list(dataset.items["brand"]) == ["", "Acme"] * 4 + ["", ""]
    assert item.x_text.shape == (10, 256)
    norm = item.x_text.norm(dim=1)
    torch.testing.assert_close(norm, torch.tensor([1.0] * 8 + [0.0] * 2))


def test_an_encoder_of_ones_own_sees_the_words(root: Path) -> None:
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([[len(text), i] for i, text in enumerate(texts)], dtype=np.float64)

    dataset = AmazonReviews(root, CATEGORY, text_encoder=encode, text_name="lengths", k_core=2)
    assert len(seen) == 8
    assert seen[1] == (
        'Case & cover number 1 it\'s "new". Acme. Cell Phones & Accessories, Cases. '
        "A long description of kind 1"
    )
    expected = [[len(text), i] for i, text in enumerate(seen)] + [[0, 0]] * 2
    assert dataset.features["text"].tolist() == expected
    assert dataset.encoders == {"text": "lengths"}
    seen.clear()
    cached = AmazonReviews(root, CATEGORY, text_encoder=encode, text_name="lengths", k_core=2)
    assert seen == []
    assert torch.equal(cached.features["text"], dataset.features["text"])
    assert list(cached.item_ids) == list(dataset.item_ids)
    assert cached.items is not None and cached.items.equals(dataset.items)
    assert AmazonReviews(root, CATEGORY, k_core=2).features["text"].size(1) == 256


def test_it_trains_without_images_and_with(root: Path) -> None:
    plain = AmazonReviews(root, CATEGORY, images=False, pre_transform=ItemKNNGraph(k=3))
    assert plain.modalities == ("text",)
    assert plain.raw_file_names == [RATINGS, META]
    full = AmazonReviews(root, CATEGORY, pre_transform=ItemKNNGraph(k=3))
    assert _features(full, Settings(), "gtc") == "image+text (tfidf256)"
    assert build_model("gtc", full).filter.incomplete == full.incomplete
    assert build_model("gtc", full, modalities=["text"]).filter.incomplete == ("text",)


def test_the_record_is_counted_over_all_that_are_read_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon_files, "_IMAGES_AT_ONCE", 2)
    spoil_image(5, 7, np.nan)(root / "raw")
    with pytest.raises(ValueError, match=r"record 5, number 7 is nan"):
        AmazonReviews(root, CATEGORY)


def test_what_is_not_asked_for_is_not_looked_at(root: Path) -> None:
    expected = AmazonReviews(root, CATEGORY, k_core=2)
    spoil_image(10, 3, np.nan)(root / "raw")  # ITEMS[10], which is not in the core
    with gzip.open(root / "raw" / META, "at") as file:
        file.write("{'asin': 'B0ELSEWHER', 'title': broken\n")
    found = AmazonReviews(root, CATEGORY, k_core=2, force_reload=True)
    for name, x in expected.features.items():
        assert torch.equal(found.features[name], x)


def test_offline_error_lists_the_publishers_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert amazon_reviews._URL == "https://snap.stanford.edu/data/amazon/productGraph"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setattr(amazon_reviews, "_URL", url)
    with pytest.raises(ConnectionError) as caught:
        AmazonReviews(tmp_path, CATEGORY)
    message = str(caught.value)
    assert str(tmp_path / "raw") in message
    assert f"  {RATINGS} from {url}/categoryFiles/{RATINGS}" in message
    assert f"  {META} from {url}/categoryFiles/{META}" in message
    assert f"  {IMAGES} from {url}/image_features/categoryFiles/{IMAGES}" in message


def test_the_writer_writes_what_the_publishers_reader_reads(root: Path) -> None:
    with gzip.open(root / "raw" / META, "rt") as file:
        assert [ast.literal_eval(line) for line in file] == metadata()
    with open(root / "raw" / IMAGES, "rb") as file:
        assert file.read(10) == ITEMS[9].encode()
        vector = array.array("f")
        vector.fromfile(file, 4096)
        assert vector == image(9)
    assert tfidf_embedding(["a b", "a b"], dim=2).shape == (2, 2)


def test_missing_files_are_downloaded_where_the_publisher_has_them(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "image_features").mkdir()
    for folder, names in (
        ("categoryFiles", [RATINGS, META]),
        ("image_features/categoryFiles", [IMAGES]),
    ):
        (site / folder).mkdir()
        for name in names:
            (site / folder / name).write_bytes((root / "raw" / name).read_bytes())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(amazon_reviews, "_URL", f"http://127.0.0.1:{server.server_port}")
        fetched = AmazonReviews(tmp_path_factory.mktemp("fresh"), CATEGORY)
        server.shutdown()
    expected = AmazonReviews(root, CATEGORY)
    assert [pairs(fetched, s) for s in SPLITS] == [pairs(expected, s) for s in SPLITS]
    assert torch.equal(fetched.features["image"], expected.features["image"])
    notes = sorted(path.name for path in Path(fetched.raw_dir).glob("*.sha256"))
    assert notes == sorted(f"{name}.sha256" for name in (RATINGS, META, IMAGES))
