"""Small files in the publisher's exact raw formats, read back by plain loops."""

from __future__ import annotations

import array
import ast
import gzip
import http.server
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from gtc_pyg.datasets import AmazonReviews, amazon_files, amazon_reviews
from gtc_pyg.experiment import Settings, _features, build_model
from gtc_pyg.transforms import ItemKNNGraph
from gtc_pyg.transforms.text_features import tfidf_embedding

RATES = ("user", "rates", "item")
SPLITS = ("train", "val", "test")
CATEGORY = "Cell_Phones_and_Accessories"
RATINGS, META, IMAGES = (
    f"ratings_{CATEGORY}.csv",
    f"meta_{CATEGORY}.json.gz",
    f"image_features_{CATEGORY}.b",
)
USERS = [f"A{10**12 + 7 * u}"[:14] for u in range(12)]
ITEMS = [f"B00{i:07d}" for i in range(10)] + ["9876543210"]  # the last one: one rating only


def ratings() -> list[str]:
    rng = np.random.default_rng(0)
    pairs = [(u, i) for u in range(12) for i in rng.choice(10, 7, replace=False)]
    lines = [
        f"{USERS[u]},{ITEMS[i]},{1 + k % 5}.0,{1_300_000_000 + 86400 * k}"
        for k, (u, i) in enumerate(pairs)
    ]
    again = f"{USERS[pairs[0][0]]},{ITEMS[pairs[0][1]]},1.0,1400000000"
    rare = [f"{USERS[0]},{ITEMS[10]},5.0,1300000000", "AOTHER,B000000000,5.0,1300000000"]
    return [*lines, again, *rare]


def metadata() -> list[dict[str, object]]:
    records: list[dict[str, object]] = [
        {
            "asin": item,
            "related": {"also_bought": ["B0ELSEWHER"]},
            "title": f'Case &amp; cover number {i % 3} it\'s "new"',
            "salesRank": {"Cell Phones & Accessories": 1000 + i},
            "imUrl": "http://ecx.images-amazon.com/images/I/51.jpg",
            "categories": [["Cell Phones & Accessories", "Cases"], ["Cell Phones & Accessories"]],
            "description": f"A long description of kind {i % 2}",
            **({"brand": "Acme"} if i % 2 else {}),
        }
        for i, item in enumerate(ITEMS[:8])
    ]
    records.append({"asin": ITEMS[8], "price": 3.17})  # no words; ITEMS[9] has no record at all
    records.append({"asin": "B0ELSEWHER", "title": "not rated"})
    return records


def image(index: int) -> array.array:
    return array.array("f", np.random.default_rng(index).random(4096).astype("f").tolist())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / RATINGS).write_text("\n".join(ratings()) + "\n")
    with gzip.open(raw / META, "wt", encoding="utf-8") as file:
        file.writelines(f"{record!r}\n" for record in metadata())
    with open(raw / IMAGES, "wb") as file:  # ITEMS[3] has none; not in the order of the items
        for i in [9, 2, 1, 0, 8, 7, 6, 5, 4, 10]:
            file.write(ITEMS[i].encode())
            image(i).tofile(file)
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


def test_nothing_in_the_metadata_is_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evil = f"{{'asin': '{ITEMS[0]}', 'title': print('this must never run')}}"
    _meta(evil)(root / "raw")
    with pytest.raises(ValueError, match=r"meta_.*gz, line 1: b\"{'asin'.*no Python literal"):
        AmazonReviews(root, CATEGORY)
    assert "never run" not in capsys.readouterr().out


def _rating(number: int, text: str) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        lines = (raw / RATINGS).read_text().splitlines()
        lines[number - 1] = text
        (raw / RATINGS).write_text("\n".join(lines) + "\n")

    return edit


def _meta(*lines: str) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        with gzip.open(raw / META, "wt") as file:
            file.writelines(f"{line}\n" for line in lines)

    return edit


def _cut(name: str, bytes_: int) -> Callable[[Path], None]:
    return lambda raw: os.truncate(raw / name, (raw / name).stat().st_size - bytes_)


def _bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda raw: (raw / name).write_bytes(content)


def _image(number: int, column: int, value: float) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        with open(raw / IMAGES, "r+b") as file:
            file.seek((number - 1) * 16394 + 10 + 4 * column)
            array.array("f", [value]).tofile(file)

    return edit


LINE = rf"{RATINGS}, line 4: "
BAD = {
    "nan rating": (_rating(4, "A1,B000000001,nan,13"), LINE + "rating is 'nan', expected a number"),
    "text rating": (_rating(4, "A1,B000000001,good,13"), LINE + "rating is 'good'"),
    "no rating": (_rating(4, "A1,B000000001,,13"), LINE + "rating is '', expected a number"),
    "no time": (_rating(4, "A1,B000000001,5.0"), LINE + "time is (missing|''), expected whole sec"),
    "time": (_rating(4, "A1,B000000001,5.0,2014-01-01"), LINE + "time is '2014-01-01'"),
    "no user": (_rating(4, ",B000000001,5.0,13"), LINE + "user is '', expected an id"),
    "blank": (_rating(4, ""), LINE + "user is (missing|''), expected an id"),
    "five fields": (_rating(4, "A1,B000000001,5.0,13,1"), rf"{RATINGS}: not a table.*line 4"),
    "header": (_rating(1, "user,item,rating,timestamp"), r"line 1: rating is 'rating'"),
    "three columns": (_bytes(RATINGS, b"a,b,1\n"), rf"{RATINGS}, line 1: 3 columns, expected user"),
    "empty": (_bytes(RATINGS, b""), rf"{RATINGS}: not a table"),
    "no core": (_bytes(RATINGS, b"a,b,1,1\n"), r"none of 1 interactions is in the 5-core"),
    "broken literal": (_meta("{'asin': 'B000000001', "), r"line 1: .*is no Python literal"),
    "json": (_meta('{"asin": "B000000001", "title": null}'), r"line 1: .*is no Python literal"),
    "no dict": (_meta("{}", "['B000000001']"), r"line 1: .*expected a dictionary with 'asin'"),
    "no words": (_meta("{'asin': 'B000000001'}"), rf"{META}: has no words for any of the 10 items"),
    "cut gz": (_cut(META, 40), rf"{META}: not a whole gzip file, after line \d+ \("),
    "no gz": (_bytes(META, b"{'asin': 'a'}\n"), rf"{META}: not a whole gzip file, after line 0"),
    "cut image": (_cut(IMAGES, 4), rf"{IMAGES}: record 10 has 16390 bytes, expected 16394"),
    "nan image": (_image(5, 7, np.nan), rf"{IMAGES}: record 5, number 7 is nan, expected finite"),
    "inf image": (_image(2, 4095, np.inf), rf"{IMAGES}: record 2, number 4095 is inf"),
    "no image": (_bytes(IMAGES, bytes(16394)), rf"{IMAGES}: none of 1 records is of .* 10 items"),
}


@pytest.mark.parametrize(("edit", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_leaves_nothing(
    root: Path, edit: Callable[[Path], None], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amazon_files, "_IMAGES_AT_ONCE", 2)
    edit(root / "raw")
    with pytest.raises(ValueError, match=message):
        AmazonReviews(root, CATEGORY)
    assert not (root / "processed").exists()


def test_what_is_not_asked_for_is_not_looked_at(root: Path) -> None:
    expected = AmazonReviews(root, CATEGORY, k_core=2)
    _image(10, 3, np.nan)(root / "raw")  # ITEMS[10], which is not in the core
    with gzip.open(root / "raw" / META, "at") as file:
        file.write("{'asin': 'B0ELSEWHER', 'title': broken\n")
    found = AmazonReviews(root, CATEGORY, k_core=2, force_reload=True)
    for name, x in expected.features.items():
        assert torch.equal(found.features[name], x)


def encoder(out: np.ndarray) -> dict[str, object]:
    return {"text_encoder": lambda texts: out, "text_name": "a"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category": "Cell Phones"}, r"'category' must be .* \(got 'Cell Phones'\)"),
        ({"category": "../Baby"}, r"'category' must be"),
        ({"k_core": 0}, r"'k_core' must be at least 1 \(got 0\)"),
        ({"text_encoder": len}, r"'text_name' must go with 'text_encoder' .*\(got None and"),
        ({"text_name": "a"}, r"'text_name' must go with 'text_encoder'"),
        ({"text_encoder": len, "text_name": "a/b"}, r"'text_name' .* \(got 'a/b'"),
        (encoder(np.ones((3, 2))), r"one row for each of 8 texts \(got \[3, 2\]\)"),
        (encoder(np.full((8, 2), np.nan)), r"a: row 0, column 0 is nan"),
    ],
)
def test_bad_arguments_are_named(root: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AmazonReviews(root, **{"category": CATEGORY, **options})
    assert not (root / "processed").exists()


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
