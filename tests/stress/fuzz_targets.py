"""What is fuzzed: readers, and valid files to start from.

Each target writes its input below a folder and calls the reader. It returns where the file was
read, after a check that what was read is sound, and raises what the reader raised otherwise.
"""

import gzip
import hashlib
import io
import pickle
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_array, coo_matrix, csr_matrix, save_npz

from gtc_pyg.datasets import LFM2k, MMRecFolder, PlantedPreferences
from gtc_pyg.datasets.amazon_files import read_images, read_metadata, read_ratings
from gtc_pyg.datasets.raw_files import read_csr_graph, read_inter, read_npy, read_sparse_pickle
from gtc_pyg.experiment.config import read_settings
from gtc_pyg.models import FREEDOM
from gtc_pyg.recommend import Recommender
from gtc_pyg.recommend.manifest import SUMS
from gtc_pyg.transforms import ItemKNNGraph
from tests.stress.fuzz_mutations import (
    FILES,
    LITERAL,
    NPY,
    PARTS,
    PICKLE,
    TABLE,
    YAML,
    Mutation,
    inside_folder,
    inside_gzip,
    inside_npy,
    inside_zip,
)

DENSE = np.array([[0, 1, 0], [2, 0, 3], [0, 0, 1]])
IDS = ["A000000001", "A000000002", "B000000003"]


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        seeds: Valid inputs, made with the folder at hand.
        read: Writes an input below the folder, reads it and checks what was read.
        tokens: Pieces that mean something to the reader.
        inside: Spoils what a container holds, and puts the container right again.
        errors: What the reader may raise.
        named: Whether its messages begin with the file.
        most: Longest input in bytes.
    """

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path, bytes], None]
    tokens: tuple[bytes, ...] = ()
    inside: Callable[[bytes, random.Random, Mutation], bytes] | None = None
    errors: tuple[type[Exception], ...] = (ValueError,)
    named: bool = True
    most: int = 4096


writing = False  # whether a file that is written is ours


def written(path: Path, content: bytes) -> str:
    """Writes a file, which the watch over the readers does not count."""
    global writing
    writing = True
    try:
        path.write_bytes(content)
    finally:
        writing = False
    return str(path)


# --- tables of text ---


def inter_seeds(folder: Path) -> list[bytes]:
    return [
        b"userID\titemID\tx_label\n0\t0\t0\n1\t2\t1\n3\t1\t2\n",
        b"userID\titemID\trating\ttimestamp\tx_label\n0\t0\t5.0\t1\t0\n\n1\t2\t4\t2\t1\n",
        b"x_label\tuserID\titemID\r\n0\t12\t7\r\n2\t13\t8\r\n",
    ]


def read_inter_checked(folder: Path, content: bytes) -> None:
    """Whatever is accepted is what a plain split at tabs and line ends gives."""
    table = read_inter(written(folder / "a.inter", content))
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    head = lines[0].split("\t")
    where = [head.index(name) for name in ("userID", "itemID", "x_label")]
    found = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        picked = [cells[i] if i < len(cells) else "" for i in where]
        if any(picked):
            found.append([*map(int, picked), number])
    got = torch.stack([*table.edge_index, table.label, table.line], dim=1).tolist()
    assert got == found, f"read {got[:3]}, the text says {found[:3]}"


def rating_seeds(folder: Path) -> list[bytes]:
    rows = [f"U{u},{i},5.0,{1000 + u}" for u in range(3) for i in IDS]
    return ["\n".join(rows).encode(), b"U1,A000000001,1.0,99\r\nU2,A000000001,2,-5\r\n"]


def read_ratings_checked(folder: Path, content: bytes) -> None:
    edge_index, users, items = read_ratings(written(folder / "r.csv", content), 1)
    assert edge_index.dtype == torch.long and edge_index.size(1) > 0
    assert users == sorted(set(users)) and items == sorted(set(items))
    assert int(edge_index[0].max()) == len(users) - 1
    assert int(edge_index[1].max()) == len(items) - 1


def tag_seeds(folder: Path) -> list[bytes]:
    return [b"itemID\tartistID\ttags\n0\t5\trock,pop\n2\t6\t\n", b"tags\titemID\nfolk\t1\n"]


def read_tags_checked(folder: Path, content: bytes) -> None:
    written(folder / "items.tsv", content)
    tags = LFM2k.item_tags(SimpleNamespace(raw_dir=str(folder), num_items=4))  # type: ignore[arg-type]
    assert len(tags) == 4 and all(isinstance(tag, str) for tag in tags)


# --- arrays ---


def npy_bytes(array: Any, **more: Any) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, np.asarray(array), **more)
    return out.getvalue()


def npy_seeds(folder: Path) -> list[bytes]:
    values = np.arange(6).reshape(2, 3)
    out = [npy_bytes(values.astype(kind)) for kind in ("<f4", ">f8", "<f2", "i1", "u8", "?")]
    out += [npy_bytes(np.asfortranarray(values), version=(v, 0)) for v in (1, 2, 3)]
    return [*out, npy_bytes([["a"]]), npy_bytes(np.zeros((0, 4)))]


def read_npy_checked(folder: Path, content: bytes) -> None:
    x = read_npy(written(folder / "x.npy", content))
    assert x.dtype == torch.float32 and x.numel() <= len(content)
    x.add_(1)  # it is no view of the file


def npz_seeds(folder: Path) -> list[bytes]:
    out = []
    for matrix, squeeze in ((csr_matrix(DENSE), True), (csr_matrix(DENSE * 1.0), False)):
        file = io.BytesIO()
        save_npz(file, matrix, compressed=squeeze)
        out.append(file.getvalue())
    return out


def read_npz_checked(folder: Path, content: bytes) -> None:
    edge_index, weight, rows = read_csr_graph(written(folder / "g.npz", content))
    assert edge_index.shape == (2, weight.numel()) and bool(weight.isfinite().all())
    assert weight.numel() == 0 or 0 <= int(edge_index.min()) <= int(edge_index.max()) < rows


def pickle_seeds(folder: Path) -> list[bytes]:
    kinds = (coo_matrix, csr_matrix, coo_array)
    return [pickle.dumps(kind(DENSE), protocol=p) for kind in kinds for p in (2, 3, 4, 5)]


def read_pickle_checked(folder: Path, content: bytes) -> None:
    edge_index, shape = read_sparse_pickle(written(folder / "m.pkl", content))
    for row, size in zip(edge_index, shape, strict=True):
        assert row.numel() == 0 or 0 <= int(row.min()) <= int(row.max()) < size


# --- Amazon ---


def metadata_seeds(folder: Path) -> list[bytes]:
    lines = [f"{{'asin': '{i}', 'title': 'a \\'b\\'', 'categories': [['x', 'y']]}}" for i in IDS]
    return [gzip.compress("\n".join(lines).encode(), mtime=0)]


def read_metadata_checked(folder: Path, content: bytes) -> None:
    records = read_metadata(written(folder / "m.json.gz", content), IDS)
    assert set(records) <= set(IDS)
    assert all(record["asin"] == name for name, record in records.items())


def image_seeds(folder: Path) -> list[bytes]:
    records = [i.encode() + np.float32([0.5, n]).tobytes() for n, i in enumerate(IDS)]
    return [b"".join(records), records[0]]


def read_images_checked(folder: Path, content: bytes) -> None:
    """An input of 18 bytes is a record: the id and two numbers, again and again."""
    whole = len(content) // 18 * 18
    records = [content[i : i + 10] + content[i + 10 : i + 18] * 2048 for i in range(0, whole, 18)]
    path = written(folder / "i.b", b"".join(records) + content[whole:])
    x, mask = read_images(path, IDS)
    assert x.shape == (3, 4096) and bool(x.isfinite().all()) and bool(mask.any())


# --- folders ---


def recommender_folder(folder: Path) -> Path:
    """A saved recommender, made once."""
    place = folder / "saved"
    if not place.exists():
        data = PlantedPreferences(20, 20, ["image"], mean_degree=6.0, transform=ItemKNNGraph(k=2))
        torch.manual_seed(0)
        widths = {"image": data.features["image"].size(1)}
        model = FREEDOM(20, 20, widths, hidden_channels=4)
        Recommender(model, data).save(place)
    return place


def folder_seeds(folder: Path) -> list[bytes]:
    place = recommender_folder(folder)
    return [bytes([i]) + (place / name).read_bytes() for i, name in enumerate(FILES)]


def config_seeds(folder: Path) -> list[bytes]:
    return [folder_seeds(folder)[0][1:]]


class Spoilt:
    """The folder with one file exchanged, its checksum put right."""

    def __init__(self) -> None:
        self.whole: dict[str, bytes] = {}

    def __call__(self, folder: Path, content: bytes) -> None:
        place = recommender_folder(folder)
        self.whole = self.whole or {name: (place / name).read_bytes() for name in (SUMS, *FILES)}
        name, content = FILES[content[0] % 4 if content else 0], content[1:]
        digests = [hashlib.sha256(x).hexdigest().encode() for x in (self.whole[name], content)]
        written(place / SUMS, self.whole[SUMS].replace(*digests))
        written(place / name, content)
        try:
            loaded = Recommender.load(place)
            assert loaded.num_users == loaded.user_emb.size(0) == len(loaded.users)
            assert loaded.num_items == loaded.item_emb.size(0) == len(loaded.items)
        finally:
            written(place / name, self.whole[name])


READ_SPOILT = Spoilt()


def read_config_checked(folder: Path, content: bytes) -> None:
    READ_SPOILT(folder, b"\0" + content)


def settings_seeds(folder: Path) -> list[bytes]:
    return [
        b"gtc:\n  lr: 2e-3\n  model:\n    content_filter: {condition: user, strength: 0.3}\n"
        b"    ranking: {class: SampledSoftmax, num_negatives: 256, scale: 1.5}\n"
        b"    heads: [{class: SpectralHead, channels: 64}, {class: ItemBias}]\n"
        b"    alignment: null\n    loss_weights: {diffusion: 0.1}\n    num_layers: 2\n",
        b"lightgcn:\n  epochs: 200\nfreedom:\n  patience: 5\n  modalities: [image, text]\n",
    ]


def read_settings_checked(folder: Path, content: bytes) -> None:
    for settings in read_settings(written(folder / "s.yaml", content)).values():
        assert settings.lr > 0 and settings.epochs >= 1
        assert settings.batch_size is None or settings.batch_size >= 1


class Processed:
    """A data set's processed file: what cannot be read is made anew from the raw files."""

    def __init__(self) -> None:
        self.dataset: Any = None

    def seeds(self, folder: Path) -> list[bytes]:
        raw = folder / "mmrec" / "raw"
        raw.mkdir(parents=True, exist_ok=True)
        lines = ["userID\titemID\tx_label", "0\t0\t0", "1\t1\t0", "0\t2\t1", "1\t2\t2"]
        (raw / "toy.inter").write_text("\n".join(lines))
        np.save(raw / "text_feat.npy", np.eye(3, 2))
        self.dataset = MMRecFolder(raw.parent, "toy")
        return [Path(self.dataset.processed_paths[0]).read_bytes()]

    def __call__(self, folder: Path, content: bytes) -> None:
        path = Path(self.dataset.processed_paths[0])
        written(path, content)
        if not self.dataset._load():
            raise ValueError("cannot be read safely, processing again")
        self.dataset._payload = {}


PROCESSED = Processed()

TARGETS = {
    "inter": Target(inter_seeds, read_inter_checked, TABLE),
    "config": Target(config_seeds, read_config_checked, YAML),
    "settings": Target(settings_seeds, read_settings_checked, YAML),
    "folder": Target(folder_seeds, READ_SPOILT, YAML + PARTS, inside_folder, most=16_384),
    "npy": Target(npy_seeds, read_npy_checked, NPY, inside_npy, most=1024),
    "npz": Target(npz_seeds, read_npz_checked, NPY + PARTS, inside_zip),
    "pickle": Target(pickle_seeds, read_pickle_checked, PICKLE, most=2048),
    "ratings": Target(rating_seeds, read_ratings_checked, (*TABLE, b",", b",,,", b"A000000001")),
    "metadata": Target(metadata_seeds, read_metadata_checked, LITERAL, inside_gzip),
    "images": Target(image_seeds, read_images_checked, (b"A000000001", b"\0\0\x80\x7f"), most=256),
    "tags": Target(tag_seeds, read_tags_checked, (*TABLE, b"itemID", b"tags")),
    "processed": Target(PROCESSED.seeds, PROCESSED, PARTS + PICKLE, named=False, most=16_384),
}
