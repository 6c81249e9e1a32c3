from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from gtc_pyg.datasets import TikTok

RATES = ("user", "rates", "item")


def test_published_counts(real_root: Callable[[str], Path]) -> None:
    dataset = TikTok(real_root("tiktok"), untrained_users=True)
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


def test_users_without_training_are_left_out_by_default(real_root: Callable[[str], Path]) -> None:
    dataset = TikTok(real_root("tiktok"))
    labels = {s: dataset.view(s)[RATES].edge_label_index for s in ("train", "val", "test")}
    trained = set(labels["train"][0].tolist())
    assert dataset.num_left_out == 10
    assert set(labels["val"][0].tolist()) | set(labels["test"][0].tolist()) <= trained
    assert [label.size(1) for label in labels.values()] == [59541, 3046, 6125]


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
