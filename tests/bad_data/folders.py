r"""Small sets in the published formats, without a fault."""

from __future__ import annotations

import array
import gzip
import pickle
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, save_npz

NUM_USERS, NUM_ITEMS = 4, 12
TRAIN = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5), (3, 6), (3, 7)]
VAL = [(0, 8), (1, 9)]
TEST = [(2, 10), (3, 11)]

CATEGORY = "Cell_Phones_and_Accessories"
RATINGS, META, IMAGES = (
    f"ratings_{CATEGORY}.csv",
    f"meta_{CATEGORY}.json.gz",
    f"image_features_{CATEGORY}.b",
)
USERS = [f"A{10**12 + 7 * u}"[:14] for u in range(12)]
ITEMS = [f"B00{i:07d}" for i in range(10)] + ["9876543210"]  # the last one: one rating only


def _raw(root: Path) -> Path:
    raw = root / "raw"
    raw.mkdir(parents=True)
    return raw


def _graph() -> csr_matrix:
    rng = np.random.default_rng(0)
    dense = np.eye(NUM_ITEMS)
    for row in range(NUM_ITEMS):
        dense[row, rng.choice(NUM_ITEMS, 3, replace=False)] = 0.5
    return csr_matrix(dense.astype(np.float32))


def _write_inter(path: Path) -> None:
    lines = ["userID\titemID\tx_label"]
    for label, pairs in enumerate((TRAIN, VAL, TEST)):
        lines += [f"{user}\t{item}\t{label}" for user, item in pairs]
    path.write_text("\n".join(lines) + "\n")


def _content(width: int) -> np.ndarray:
    return np.random.default_rng(width).standard_normal((NUM_ITEMS, width))


def write_mmrec(root: Path) -> None:
    r"""``toy.inter`` with dense ``text``, dense and graph ``image``, and graph-only ``sound``."""
    raw = _raw(root)
    _write_inter(raw / "toy.inter")
    np.save(raw / "text_feat.npy", _content(5))
    np.save(raw / "image_feat.npy", _content(6).astype(np.float16))
    save_npz(raw / "image_knn10_cos.npz", _graph())
    save_npz(raw / "sound_knn10_cos.npz", _graph())


def write_tiktok(root: Path) -> None:
    raw = _raw(root)
    for name, pairs in (("trnMat", TRAIN), ("valMat", VAL), ("tstMat", TEST)):
        user, item = zip(*pairs, strict=True)
        matrix = coo_matrix((np.ones(len(pairs)), (user, item)), shape=(NUM_USERS, NUM_ITEMS))
        (raw / f"{name}.pkl").write_bytes(pickle.dumps(matrix, protocol=3))
    np.save(raw / "image_feat.npy", _content(4).astype(np.float16))
    np.save(raw / "audio_feat.npy", _content(3).astype(np.float16))


def write_lfm2k(root: Path) -> None:
    raw = _raw(root)
    _write_inter(raw / "lfm2k.inter")
    for width, name in enumerate(("all-MiniLM-L6-v2", "vggish", "whisper"), start=3):
        np.save(raw / f"{name}.npy", _content(width))
    save_npz(raw / "knn10_image_B.npz", _graph())


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


def write_amazon(root: Path) -> None:
    raw = _raw(root)
    (raw / RATINGS).write_text("\n".join(ratings()) + "\n")
    with gzip.open(raw / META, "wt", encoding="utf-8") as file:
        file.writelines(f"{record!r}\n" for record in metadata())
    with open(raw / IMAGES, "wb") as file:  # ITEMS[3] has none; not in the order of the items
        for i in [9, 2, 1, 0, 8, 7, 6, 5, 4, 10]:
            file.write(ITEMS[i].encode())
            image(i).tofile(file)
