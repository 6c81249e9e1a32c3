r"""Small sets in the published formats, and roots that link to the real ones."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_matrix, csr_matrix, save_npz

NUM_USERS, NUM_ITEMS = 4, 12
TRAIN = [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5), (3, 6), (3, 7)]
VAL = [(0, 8), (1, 9)]
TEST = [(2, 10), (3, 11)]


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


@pytest.fixture
def mmrec_root(tmp_path: Path) -> Path:
    r"""``toy.inter`` with dense ``text``, dense and graph ``image``, and graph-only ``sound``."""
    raw = tmp_path / "mmrec" / "raw"
    raw.mkdir(parents=True)
    _write_inter(raw / "toy.inter")
    np.save(raw / "text_feat.npy", _content(5))
    np.save(raw / "image_feat.npy", _content(6).astype(np.float16))
    save_npz(raw / "image_knn10_cos.npz", _graph())
    save_npz(raw / "sound_knn10_cos.npz", _graph())
    return raw.parent


@pytest.fixture
def tiktok_root(tmp_path: Path) -> Path:
    raw = tmp_path / "tiktok" / "raw"
    raw.mkdir(parents=True)
    for name, pairs in (("trnMat", TRAIN), ("valMat", VAL), ("tstMat", TEST)):
        user, item = zip(*pairs, strict=True)
        matrix = coo_matrix((np.ones(len(pairs)), (user, item)), shape=(NUM_USERS, NUM_ITEMS))
        (raw / f"{name}.pkl").write_bytes(pickle.dumps(matrix, protocol=3))
    np.save(raw / "image_feat.npy", _content(4).astype(np.float16))
    np.save(raw / "audio_feat.npy", _content(3).astype(np.float16))
    return raw.parent


@pytest.fixture
def lfm2k_root(tmp_path: Path) -> Path:
    raw = tmp_path / "lfm2k" / "raw"
    raw.mkdir(parents=True)
    _write_inter(raw / "lfm2k.inter")
    for width, name in enumerate(("all-MiniLM-L6-v2", "vggish", "whisper"), start=3):
        np.save(raw / f"{name}.npy", _content(width))
    save_npz(raw / "knn10_image_B.npz", _graph())
    return raw.parent


@pytest.fixture
def real_root(tmp_path: Path) -> Callable[[str], Path]:
    r"""A function from the name of a real set to a writable root that links to its raw files."""

    def make(name: str) -> Path:
        folder = os.environ.get("GTC_PYG_DATA")
        if not folder:
            pytest.skip("GTC_PYG_DATA is not set: it names the folder of the real data sets")
        raw = Path(folder) / name / "raw"
        if not raw.is_dir():
            pytest.skip(f"GTC_PYG_DATA has no {name}/raw")
        root = tmp_path / f"real_{name}"
        root.mkdir()
        (root / "raw").symlink_to(raw.resolve())
        return root

    return make
