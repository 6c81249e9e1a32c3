import hashlib
import logging
import sqlite3
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import torch

from gtc_pyg.datasets import encode, from_frames
from gtc_pyg.models import GTC, ContentFilter

TEXTS = {f"i{n}": f"text number {n}" for n in range(7)}


class Hashing:
    """A text encoder without weights: every vector follows from its text. Keeps its batches."""

    def __init__(self, width=4):
        self.width, self.batches = width, []

    def __call__(self, texts):
        self.batches.append(list(texts))
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in texts]
        return [np.random.default_rng(seed).standard_normal(self.width) for seed in seeds]

    @property
    def seen(self):
        return [text for batch in self.batches for text in batch]


def test_every_item_has_the_vector_of_its_text():
    encoder = Hashing()
    frame = encode(TEXTS, encoder, batch_size=3, progress=False)
    assert [len(batch) for batch in encoder.batches] == [3, 3, 1]
    assert list(frame.index) == list(TEXTS) and set(frame.dtypes) == {np.dtype("float32")}
    expected = np.array(Hashing()(TEXTS.values()), dtype=np.float32)
    np.testing.assert_array_equal(frame.to_numpy(), expected)


def test_equal_texts_are_encoded_once_and_missing_ones_left_out():
    encoder = Hashing()
    texts = pd.Series(["tea", None, "jam", "tea", " ", np.nan, pd.NA], index=list("abcdefg"))
    frame = encode(texts.rename_axis("item"), encoder, progress=False)
    assert encoder.batches == [["tea", "jam"]]
    assert list(frame.index) == ["a", "c", "d"] and frame.index.name == "item"
    assert frame.loc["a"].equals(frame.loc["d"].rename("a"))


def test_the_cache_encodes_what_is_new_or_changed(tmp_path):
    options = {"name": "hash4", "cache": tmp_path / "folder" / "cache.sqlite", "progress": False}
    first = encode(TEXTS, Hashing(), **options)
    again = Hashing()
    pd.testing.assert_frame_equal(encode(TEXTS, again, **options), first)
    assert again.seen == []

    changed = {**TEXTS, "i2": "another text", "new": "one more", "same": TEXTS["i0"]}
    frame = encode(changed, again, **options)
    assert again.seen == ["another text", "one more"]
    assert not frame.loc["i2"].equals(first.loc["i2"])
    pd.testing.assert_frame_equal(frame.loc[["i0", "i1", "i3"]], first.loc[["i0", "i1", "i3"]])

    other = Hashing(width=5)
    assert encode(TEXTS, other, **{**options, "name": "hash5"}).shape == (7, 5)
    assert len(other.seen) == 7


def test_an_interrupted_call_goes_on_where_it_was(tmp_path):
    options = {"name": "x", "cache": tmp_path / "c.sqlite", "batch_size": 2, "progress": False}
    encoder = Hashing()

    def fails(texts):
        if len(encoder.batches) == 2:
            raise KeyboardInterrupt
        return encoder(texts)

    with pytest.raises(KeyboardInterrupt):
        encode(TEXTS, fails, **options)
    rest = Hashing()
    assert len(encode(TEXTS, rest, **options)) == 7
    assert rest.seen == list(TEXTS.values())[4:]


@pytest.fixture
def pictures(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    rng = np.random.default_rng(0)
    paths = {}
    for n in range(4):
        paths[n] = tmp_path / f"{n}.png"
        image.fromarray(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8)).save(paths[n])
    image.new("L", (8, 9), 100).save(paths[3])  # grey: comes in RGB, too
    return paths


def tiny(images):
    """A torch encoder of pictures of 8 by 9."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 6, 5)
    x = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images])
    return layer(x / 255).mean((2, 3)).bfloat16()


def test_pictures_are_opened_and_changed_ones_encoded_again(pictures, tmp_path):
    options = {"name": "tiny", "cache": tmp_path / "c.sqlite", "progress": False}
    frame = encode(pictures, tiny, **options)
    assert frame.shape == (4, 6) and list(frame.index) == [0, 1, 2, 3]
    pictures[1].write_bytes(pictures[2].read_bytes())
    later = encode(pictures, lambda images: pytest.fail("nothing is new"), **options)
    assert later.loc[1].to_numpy().tolist() == frame.loc[2].to_numpy().tolist()
    assert later.loc[0].equals(frame.loc[0])


def test_a_reader_of_ones_own(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\1\2\3")
    inputs = {"a": tmp_path / "a.bin"}
    frame = encode(inputs, np.array, read=lambda path: list(path.read_bytes()), progress=False)
    assert frame.loc["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("content", [b"no picture", None, "cut"])
def test_an_unreadable_picture_is_named_or_left_out(pictures, content, caplog):
    if content is None:
        pictures[2].unlink()
    else:
        whole = pictures[2].read_bytes()
        pictures[2].write_bytes(whole[: len(whole) // 2] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"item 2: .*2\.png cannot be read .*skip_unreadable=True"):
        encode(pictures, tiny, progress=False)
    with caplog.at_level(logging.WARNING):
        frame = encode(pictures, tiny, skip_unreadable=True, progress=False)
    assert list(frame.index) == [0, 1, 3]
    assert "1 unreadable" in caplog.text and "2.png" in caplog.text


def test_the_result_goes_into_from_frames(pictures):
    users, items = np.repeat(np.arange(6), 4), np.tile([0, 1, 2, 3], 6)
    interactions = pd.DataFrame({"user": users, "item": items})
    text = {n: f"item number {n}" for n in range(4)}
    features = {
        "image": encode({n: pictures[n] for n in (0, 1, 3)}, tiny, progress=False),
        "text": encode(text, Hashing(), progress=False),
    }
    dataset = from_frames(interactions, features=features)
    assert list(dataset.incomplete) == ["image"]
    assert dataset[0]["item"].has_image.tolist() == [True, True, False, True]
    np.testing.assert_array_equal(dataset.features["text"], features["text"].to_numpy())
    widths = {name: x.size(1) for name, x in dataset.features.items()}
    GTC(
        dataset.num_users,
        dataset.num_items,
        widths,
        ContentFilter(widths, incomplete=dataset.incomplete),
    )


def test_bad_vectors_are_refused(tmp_path):
    def call(encoder, **options):
        return encode(TEXTS, encoder, progress=False, **options)

    with pytest.raises(ValueError, match=r"'encoder' must give \[n, F\].*\[3, 4\] for 7"):
        call(lambda texts: np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"\[7\] for 7"):
        call(lambda texts: np.ones(len(texts)))
    with pytest.raises(ValueError, match=r"NaN or infinity for item 'i3'"):
        call(lambda texts: np.where(np.arange(7)[:, None] == 3, np.nan, np.ones((7, 2))))
    options = {"name": "x", "cache": tmp_path / "c.sqlite"}
    encode({"a": "text number 0"}, Hashing(3), progress=False, **options)
    with pytest.raises(ValueError, match=r"those of 'x' in .*c\.sqlite have widths \[3, 4\]"):
        call(Hashing(4), **options)


def test_bad_arguments_are_refused(tmp_path):
    with pytest.raises(TypeError, match="dict or a Series"):
        encode(["a text"], Hashing(), progress=False)
    with pytest.raises(TypeError, match="item 'a': expected a text or a Path"):
        encode({"a": 3}, Hashing(), progress=False)
    with pytest.raises(ValueError, match="item 'a' twice"):
        encode(pd.Series(["x", "y"], index=["a", "a"]), Hashing(), progress=False)
    with pytest.raises(ValueError, match="needs the encoder's 'name'"):
        encode(TEXTS, Hashing(), cache=tmp_path / "c.sqlite", progress=False)
    with pytest.raises(ValueError, match="'batch_size' must be at least 1"):
        encode(TEXTS, Hashing(), batch_size=0, progress=False)
    for nothing in ({}, {"a": None}):
        with pytest.raises(ValueError, match="nothing to encode"):
            encode(nothing, Hashing(), progress=False)


def test_a_file_that_is_no_cache_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("something of mine " * 100)
    before = path.read_bytes()
    options = {"name": "x", "skip_unreadable": True, "progress": False}
    with pytest.raises(ValueError, match=r"notes\.txt is no cache of 'encode'"):
        encode(TEXTS, Hashing(), cache=path, **options)
    assert path.read_bytes() == before
    with pytest.raises(OSError, match="cache of 'encode'"):
        encode(TEXTS, Hashing(), cache=tmp_path, **options)


def test_a_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "shop.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE orders (id INTEGER)")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"shop\.sqlite is no cache .*\['orders'\]"):
        encode(TEXTS, Hashing(), name="x", cache=path, progress=False)
    assert path.read_bytes() == before
