"""Small files in the publisher's exact raw formats, read back by plain loops."""

from __future__ import annotations

import http.server
import socket
import threading
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gtc_pyg.datasets import AmazonReviews, amazon_reviews
from gtc_pyg.experiment import Settings, _features, build_model
from gtc_pyg.transforms import ItemKNNGraph
from tests.bad_data.folders import (
    CATEGORY,
    IMAGES,
    META,
    RATINGS,
    ratings,
)

RATES = ("user", "rates", "item")
SPLITS = ("train", "val", "test")


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


def test_the_five_core_is_split_for_each_user_on_their_own(amazon_root: Path) -> None:
    dataset = AmazonReviews(amazon_root, CATEGORY)
    expected = core(ratings(), 5)
    assert 0 < len(expected) < len(ratings()) - 1
    assert pairs(dataset) == expected
    assert list(dataset.user_ids) == sorted({user for user, _ in expected})
    assert list(dataset.item_ids) == sorted({item for _, item in expected})
    for split, share in (("val", 0.1), ("test", 0.1)):
        per_user = Counter(user for user, _ in pairs(dataset, split))
        total = Counter(user for user, _ in expected)
        assert all(per_user[user] == max(1, int(share * total[user])) for user in total)


def test_splits_depend_on_the_seed_and_not_on_the_order_of_lines(amazon_root: Path) -> None:
    first = AmazonReviews(amazon_root, CATEGORY)
    lines = (amazon_root / "raw" / RATINGS).read_text().splitlines()
    (amazon_root / "raw" / RATINGS).write_text("\n".join(lines[::-1]) + "\n")
    again = AmazonReviews(amazon_root, CATEGORY)
    other = AmazonReviews(amazon_root, CATEGORY, seed=1)
    assert [pairs(again, s) for s in SPLITS] == [pairs(first, s) for s in SPLITS]
    assert torch.equal(again.features["image"], first.features["image"])
    assert pairs(other) == pairs(first)
    assert pairs(other, "test") != pairs(first, "test")


def test_an_encoder_of_ones_own_sees_the_words(amazon_root: Path) -> None:
    seen: list[str] = []

    def encode(texts: list[str]) -> np.ndarray:
        seen.extend(texts)
        return np.array([[len(text), i] for i, text in enumerate(texts)], dtype=np.float64)

    dataset = AmazonReviews(
        amazon_root, CATEGORY, text_encoder=encode, text_name="lengths", k_core=2
    )
    assert len(seen) == 8
    assert seen[1] == (
        'Case & cover number 1 it\'s "new". Acme. Cell Phones & Accessories, Cases. '
        "A long description of kind 1"
    )
    expected = [[len(text), i] for i, text in enumerate(seen)] + [[0, 0]] * 2
    assert dataset.features["text"].tolist() == expected
    assert dataset.encoders == {"text": "lengths"}
    seen.clear()
    cached = AmazonReviews(
        amazon_root, CATEGORY, text_encoder=encode, text_name="lengths", k_core=2
    )
    assert seen == []
    assert torch.equal(cached.features["text"], dataset.features["text"])
    assert list(cached.item_ids) == list(dataset.item_ids)
    assert cached.items is not None and cached.items.equals(dataset.items)
    assert AmazonReviews(amazon_root, CATEGORY, k_core=2).features["text"].size(1) == 256


def test_what_cannot_be_cached_has_its_ids(amazon_root: Path) -> None:
    amazon_root.chmod(0o555)
    try:
        dataset = AmazonReviews(amazon_root, CATEGORY, k_core=2)
    finally:
        amazon_root.chmod(0o755)
    assert not (amazon_root / "processed").exists()
    assert len(dataset.item_ids) == dataset.num_items
    assert dataset.items is not None


def test_it_trains_without_images_and_with(amazon_root: Path) -> None:
    plain = AmazonReviews(amazon_root, CATEGORY, images=False, pre_transform=ItemKNNGraph(k=3))
    assert plain.modalities == ("text",)
    assert plain.raw_file_names == [RATINGS, META]
    full = AmazonReviews(amazon_root, CATEGORY, pre_transform=ItemKNNGraph(k=3))
    assert _features(full, Settings(), "gtc") == "image+text (tfidf256)"
    assert build_model("gtc", full).content_filter.incomplete == full.incomplete
    assert build_model("gtc", full, modalities=["text"]).content_filter.incomplete == ("text",)


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


def test_missing_files_are_downloaded_from_the_publisher(
    amazon_root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path_factory.mktemp("site")
    (site / "image_features").mkdir()
    for folder, names in (
        ("categoryFiles", [RATINGS, META]),
        ("image_features/categoryFiles", [IMAGES]),
    ):
        (site / folder).mkdir()
        for name in names:
            (site / folder / name).write_bytes((amazon_root / "raw" / name).read_bytes())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(amazon_reviews, "_URL", f"http://127.0.0.1:{server.server_port}")
        fetched = AmazonReviews(tmp_path_factory.mktemp("fresh"), CATEGORY)
        server.shutdown()
    expected = AmazonReviews(amazon_root, CATEGORY)
    assert [pairs(fetched, s) for s in SPLITS] == [pairs(expected, s) for s in SPLITS]
    assert torch.equal(fetched.features["image"], expected.features["image"])
    notes = sorted(path.name for path in Path(fetched.raw_dir).glob("*.sha256"))
    assert notes == sorted(f"{name}.sha256" for name in (RATINGS, META, IMAGES))
