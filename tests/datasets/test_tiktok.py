from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix

from gtc_pyg.datasets import TikTok

RATES = ("user", "rates", "item")


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("this must never run",)


def test_published_counts(real_root: Callable[[str], Path]) -> None:
    dataset = TikTok(real_root("tiktok"))
    labels = {s: dataset.view(s)[RATES].edge_label_index for s in ("train", "val", "test")}
    assert (dataset.num_users, dataset.num_items) == (9308, 6710)
    assert [label.size(1) for label in labels.values()] == [59541, 3051, 6130]
    assert dataset.modalities == ("image", "audio")
    assert [x.shape[1] for x in dataset.features.values()] == [128, 128]
    train_users, train_items = (set(row.tolist()) for row in labels["train"])
    cold = [len(set(labels[s][1].tolist()) - train_items) for s in ("val", "test")]
    assert cold == [193, 340]
    evaluated = set(labels["val"][0].tolist()) | set(labels["test"][0].tolist())
    assert len(evaluated - train_users) == 10
    assert labels["test"][0].unique().numel() == 6130


def test_half_precision_content_becomes_float32(tiktok_root: Path) -> None:
    dataset = TikTok(tiktok_root)
    stored = np.load(tiktok_root / "raw" / "image_feat.npy")
    assert dataset.features["image"].dtype == torch.float32
    assert torch.equal(dataset.features["image"], torch.from_numpy(stored.astype(np.float32)))


def test_text_is_taken_when_present(tiktok_root: Path) -> None:
    assert TikTok(tiktok_root).modalities == ("image", "audio")
    np.save(tiktok_root / "raw" / "text_feat.npy", np.ones((12, 2)))
    assert TikTok(tiktok_root).modalities == ("image", "audio", "text")
    assert sorted(p.name for p in (tiktok_root / "processed").iterdir()) == [
        "tiktok_image_audio.pt",
        "tiktok_image_audio_text.pt",
    ]


def _matrix(entries: list[tuple[int, int]], shape: tuple[int, int] = (4, 12)) -> bytes:
    user, item = zip(*entries, strict=True) if entries else ((), ())
    return pickle.dumps(coo_matrix((np.ones(len(entries)), (user, item)), shape=shape))


def _npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=True)


BAD = {
    "forbidden global": ("trnMat.pkl", pickle.dumps(Evil()), r"trnMat.pkl.*'builtins.print'"),
    "no matrix": ("trnMat.pkl", pickle.dumps({"a": 1}), r"trnMat.pkl: holds dict"),
    "truncated pickle": ("valMat.pkl", _matrix([(0, 8)])[:-9], r"valMat.pkl"),
    "empty split": ("valMat.pkl", _matrix([]), r"valMat.pkl: the val split is empty"),
    "leak": ("tstMat.pkl", _matrix([(0, 0)]), r"tstMat.pkl: user 0, item 0 .*train.*test.*leak"),
    "twice": ("tstMat.pkl", _matrix([(0, 9), (0, 9)]), r"tstMat.pkl: .* twice in the test split"),
    "shape": ("tstMat.pkl", _matrix([(0, 9)], (4, 13)), r"tstMat.pkl: shape is \(4, 13\)"),
    "rows": ("image_feat.npy", _npy(np.ones((11, 2))), r"image_feat.npy has 11 rows .* 12"),
    "nan": ("audio_feat.npy", _npy(np.full((12, 2), np.nan)), r"audio_feat.npy: row 0, .* nan"),
    "inf": ("audio_feat.npy", _npy(np.full((12, 2), 1e300)), r"audio_feat.npy: row 0, .* inf"),
    "1-D": ("audio_feat.npy", _npy(np.ones(12)), r"audio_feat.npy.*shape \(12,\)"),
    "objects": ("image_feat.npy", _npy(np.array([[None]])), r"image_feat.npy: .*[Oo]bject"),
    "text": ("image_feat.npy", _npy(np.array([["a"]])), r"image_feat.npy: holds <U1"),
    "no npy": ("image_feat.npy", b"hello", r"image_feat.npy: not a numeric .npy"),
}


@pytest.mark.parametrize(("name", "content", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named_and_leaves_nothing(
    tiktok_root: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | Callable[[Path], None],
    message: str,
) -> None:
    path = tiktok_root / "raw" / name
    if callable(content):
        content(path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        TikTok(tiktok_root)
    assert not (tiktok_root / "processed").exists()
    assert "never run" not in capsys.readouterr().out
