r"""Small files in the publisher's exact raw formats, read back by plain loops."""

from __future__ import annotations

import array
import ast
import gzip
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from gtc_pyg.datasets import AmazonReviews, amazon_files
from gtc_pyg.transforms.text_features import tfidf_embedding
from tests.bad_data.amazon import image as spoil_image
from tests.bad_data.folders import CATEGORY, IMAGES, ITEMS, META, image, metadata


def test_the_writer_writes_what_the_publishers_reader_reads(amazon_root: Path) -> None:
    with gzip.open(amazon_root / "raw" / META, "rt") as file:
        assert [ast.literal_eval(line) for line in file] == metadata()
    with open(amazon_root / "raw" / IMAGES, "rb") as file:
        assert file.read(10) == ITEMS[9].encode()
        vector = array.array("f")
        vector.fromfile(file, 4096)
        assert vector == image(9)
    assert tfidf_embedding(["a b", "a b"], dim=2).shape == (2, 2)


@pytest.mark.parametrize("at_once", [1, 3, 512])
def test_content_is_that_of_the_item(
    amazon_root: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon_files, "_IMAGES_AT_ONCE", at_once)
    dataset = AmazonReviews(amazon_root, CATEGORY, k_core=2)
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


def test_the_record_is_counted_over_all_that_are_read_at_once(
    amazon_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon_files, "_IMAGES_AT_ONCE", 2)
    spoil_image(5, 7, np.nan)(amazon_root / "raw")
    with pytest.raises(ValueError, match=r"record 5, number 7 is nan"):
        AmazonReviews(amazon_root, CATEGORY)


def test_what_is_not_asked_for_is_not_looked_at(amazon_root: Path) -> None:
    expected = AmazonReviews(amazon_root, CATEGORY, k_core=2)
    spoil_image(10, 3, np.nan)(amazon_root / "raw")  # ITEMS[10], which is not in the core
    with gzip.open(amazon_root / "raw" / META, "at") as file:
        file.write("{'asin': 'B0ELSEWHER', 'title': broken\n")
    found = AmazonReviews(amazon_root, CATEGORY, k_core=2, force_reload=True)
    for name, x in expected.features.items():
        assert torch.equal(found.features[name], x)


def rated(path: Path, pairs: list[tuple[str, str]], seed: int = 0) -> str:
    r"""Writes the pairs in another order, some of them twice."""
    rng = np.random.default_rng(seed)
    again = [pairs[i] for i in rng.integers(len(pairs), size=9)]
    lines = [f"{user},{item},{n % 5 + 1}.0,{n}\n" for n, (user, item) in enumerate(again + pairs)]
    path.write_text("".join(rng.permutation(lines)))
    return str(path)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_ratings_are_the_core_that_networkx_finds_in_any_order(tmp_path: Path, k: int) -> None:
    rng = np.random.default_rng(k)
    found = {(f"U{u}", f"B{i}") for u, i in rng.integers(18, size=(90, 2)).tolist()}
    graph = nx.k_core(nx.Graph(found), k)
    expected = sorted(pair for pair in found if graph.has_edge(*pair))
    assert (0 < len(expected) < len(found)) == (k > 1)
    for seed in range(3):
        path = rated(tmp_path / "ratings.csv", sorted(found), seed)
        edge_index, users, items = amazon_files.read_ratings(path, k)
        assert [(users[u], items[i]) for u, i in edge_index.t().tolist()] == expected
        assert users == sorted({user for user, _ in expected})
        assert items == sorted({item for _, item in expected})


def test_of_two_records_of_an_item_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "meta.json.gz"
    lines = [
        "{'asin': 'B1', 'title': 'first'}",
        "",
        "{'asin': 'B3', 'title': broken",
        "{'related': {'asin': 'B2'}, 'asin': 'B4'}",
        '{"asin": "B1", "title": "last"}',
    ]
    with gzip.open(path, "wt") as file:
        file.writelines(f"{line}\n" for line in lines)
    found = amazon_files.read_metadata(str(path), ["B1", "B2"])
    assert found == {"B1": {"asin": "B1", "title": "last"}}
    with pytest.raises(ValueError, match=r"meta.json.gz, line 3: .*no Python literal"):
        amazon_files.read_metadata(str(path), ["B1", "B3"])


@pytest.mark.parametrize("at_once", [1, 2, 512])
def test_of_two_images_of_an_item_the_last_counts(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon_files, "_IMAGES_AT_ONCE", at_once)
    path = tmp_path / "images.b"
    records = [("B000000002", 1), ("B000000009", 2), ("B000000000", 3), ("B000000002", 4)]
    with open(path, "wb") as file:
        for asin, value in records:
            file.write(asin.encode() + np.full(4096, value, dtype="<f4").tobytes())
    ids = ["B000000000", "B000000001", "B000000002"]
    x, has = amazon_files.read_images(str(path), ids)
    assert has.tolist() == [True, False, True]
    assert torch.equal(x, torch.tensor([3.0, 0.0, 4.0]).view(-1, 1).expand(3, 4096))
