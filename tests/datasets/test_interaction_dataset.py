from __future__ import annotations

import logging
import os
import pickle
import threading
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from gtc_pyg.datasets import InteractionDataset, InteractionTables, TikTok, interaction_dataset
from gtc_pyg.transforms import ItemKNNGraph

RATES = ("user", "rates", "item")


def tensors(data: HeteroData) -> dict[tuple, torch.Tensor]:
    return {
        (store._key, key): value
        for store in data.stores
        for key, value in store.items()
        if isinstance(value, torch.Tensor) and key != "edge_label_index"
    }


def test_training_labels_are_the_training_edges(tiktok_root: Path) -> None:
    data = TikTok(tiktok_root)[0]
    assert torch.equal(data[RATES].edge_label_index, data[RATES].edge_index)
    assert torch.equal(data["item", "rev_rates", "user"].edge_index, data[RATES].edge_index.flip(0))


@pytest.mark.parametrize("reloaded", [False, True])
def test_views_share_all_but_their_labels(tiktok_root: Path, reloaded: bool) -> None:
    dataset = TikTok(tiktok_root)
    if reloaded:
        dataset = TikTok(tiktok_root)
    train = dataset[0]
    for split, expected in (("train", 8), ("val", 2), ("test", 2)):
        view = dataset.view(split)
        assert view[RATES].edge_label_index.shape == (2, expected)
        assert tensors(view).keys() == tensors(train).keys()
        for key, value in tensors(view).items():
            assert value.data_ptr() == tensors(train)[key].data_ptr()


def test_held_out_edges_are_not_reachable_from_the_training_view(tiktok_root: Path) -> None:
    dataset = TikTok(tiktok_root)
    held_out = {
        pair
        for split in ("val", "test")
        for pair in zip(*dataset.view(split)[RATES].edge_label_index.tolist(), strict=True)
    }
    data = dataset[0]
    for name in ("edge_index", "edge_label_index"):
        assert held_out.isdisjoint(zip(*data[RATES][name].tolist(), strict=True))
    reverse = data["item", "rev_rates", "user"].edge_index.flip(0)
    assert held_out.isdisjoint(zip(*reverse.tolist(), strict=True))


def test_changing_a_view_leaves_the_dataset_alone(tiktok_root: Path) -> None:
    dataset = TikTok(tiktok_root)
    data = dataset[0]
    data["item"].extra = torch.ones(12)
    data[RATES].edge_index = data[RATES].edge_index[:, :1]
    assert "extra" not in dataset[0]["item"]
    assert dataset[0][RATES].edge_index.size(1) == 8


def test_transform_applies_to_every_view(tiktok_root: Path) -> None:
    dataset = TikTok(tiktok_root, transform=ItemKNNGraph(k=2))
    for data in (dataset[0], dataset.view("train"), dataset.view("val"), dataset.view("test")):
        assert ("item", "similar", "item") in data.edge_types


def test_unknown_split_is_refused(tiktok_root: Path) -> None:
    with pytest.raises(ValueError, match="unknown split 'valid': expected 'train', 'val' or 'te"):
        TikTok(tiktok_root).view("valid")


def test_pre_transform_settings_name_the_file(tiktok_root: Path) -> None:
    for k in (2, 3, 2):
        data = TikTok(tiktok_root, pre_transform=ItemKNNGraph(k=k, weights={"image": 1.0}))[0]
        assert data["item", "similar", "item"].edge_index.size(1) == 12 * k
    assert ("item", "similar", "item") not in TikTok(tiktok_root)[0].edge_types
    assert len(list((tiktok_root / "processed").iterdir())) == 3


def test_pre_transform_without_settings_is_not_cached(tiktok_root: Path) -> None:
    assert TikTok(tiktok_root, pre_transform=lambda data: data).num_items == 12
    assert not (tiktok_root / "processed").exists()


class DropItem(BaseTransform):
    def forward(self, data: HeteroData) -> HeteroData:
        data["item"].num_nodes -= 1
        return data


def test_pre_transform_must_keep_the_items(tiktok_root: Path) -> None:
    with pytest.raises(ValueError, match="pre_transform changed the number of items from 12 to 11"):
        TikTok(tiktok_root, pre_transform=DropItem())
    assert not (tiktok_root / "processed").exists()


def test_interrupted_writing_leaves_nothing(
    tiktok_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(payload: object, file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            TikTok(tiktok_root)
    assert not (tiktok_root / "processed").exists()
    TikTok(tiktok_root)
    assert [p.name for p in (tiktok_root / "processed").iterdir()] == ["tiktok_image_audio.pt"]


def test_failed_reload_keeps_the_old_file(tiktok_root: Path) -> None:
    TikTok(tiktok_root)
    before = (tiktok_root / "processed" / "tiktok_image_audio.pt").read_bytes()
    (tiktok_root / "raw" / "image_feat.npy").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"image_feat\.npy"):
        TikTok(tiktok_root, force_reload=True)
    assert [p.read_bytes() for p in (tiktok_root / "processed").iterdir()] == [before]


class Evil:
    def __reduce__(self) -> tuple:
        return print, ("this must never run",)


@pytest.mark.parametrize(
    "spoil", [lambda p: torch.save(Evil(), p), lambda p: p.write_bytes(pickle.dumps(Evil()))]
)
def test_processed_file_runs_no_code(
    tiktok_root: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None]
) -> None:
    TikTok(tiktok_root)
    spoil(tiktok_root / "processed" / "tiktok_image_audio.pt")
    spoil(tiktok_root / "processed" / "pre_transform.pt")
    assert TikTok(tiktok_root).num_users == 4
    assert "never run" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x00" * 100])
def test_damaged_processed_file_is_made_anew(tiktok_root: Path, damage: bytes) -> None:
    TikTok(tiktok_root)
    path = tiktok_root / "processed" / "tiktok_image_audio.pt"
    path.write_bytes(damage)
    assert TikTok(tiktok_root).num_users == 4
    assert torch.load(path, weights_only=True)["modalities"] == ["image", "audio"]


def content(dataset: InteractionDataset) -> list[tuple[str, bytes]]:
    found = {str(key): value for key, value in tensors(dataset[0]).items()}
    found |= {split: dataset.view(split)[RATES].edge_label_index for split in ("val", "test")}
    return [(key, value.numpy().tobytes()) for key, value in sorted(found.items())]


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_told_and_mended(
    tiktok_root: Path, caplog: pytest.LogCaptureFixture, position: float, bit: int
) -> None:
    right = content(TikTok(tiktok_root))
    path = tiktok_root / "processed" / "tiktok_image_audio.pt"
    spoilt = bytearray(path.read_bytes())
    spoilt[int(position * len(spoilt))] ^= 1 << bit
    path.write_bytes(spoilt)
    caplog.clear()
    assert content(TikTok(tiktok_root)) == right
    assert "cannot be read safely" in caplog.text
    caplog.clear()
    assert content(TikTok(tiktok_root)) == right
    assert caplog.text == ""


def test_a_processed_file_without_a_checksum_is_made_anew(
    tiktok_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    TikTok(tiktok_root)
    path = tiktok_root / "processed" / "tiktok_image_audio.pt"
    payload = torch.load(path, weights_only=True)
    payload["data"]["item"]["x_image"] += 1
    torch.save(payload, path)
    assert content(TikTok(tiktok_root)) == content(TikTok(tiktok_root, force_reload=True))
    assert "its checksum is not that of its bytes" in caplog.text
    assert zipfile.ZipFile(path).comment.startswith(b"sha256 ")


class Slow(TikTok):
    r"""Counts how often it reads the raw files, and waits there for leave."""

    builds = 0
    leave: threading.Event

    def build(self) -> InteractionTables:
        type(self).builds += 1
        assert self.leave.wait(20)
        return super().build()


def test_one_of_several_builds_and_the_others_wait(
    tiktok_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Slow.builds, Slow.leave = 0, threading.Event()
    with ThreadPoolExecutor(3) as pool:
        found = [pool.submit(Slow, tiktok_root) for _ in range(3)]
        until = time.monotonic() + 20
        while caplog.text.count("waiting for its end") < 2 and time.monotonic() < until:
            time.sleep(0.02)
        Slow.leave.set()
        first, *others = [content(done.result()) for done in found]
    assert others == [first, first]
    assert (Slow.builds, caplog.text.count("waiting for its end")) == (1, 2)
    assert sorted(p.name for p in tiktok_root.iterdir()) == ["processed", "raw"]


def test_what_a_killed_builder_left_is_removed(tiktok_root: Path) -> None:
    TikTok(tiktok_root)
    for left in (".tiktok_image_audio.pt.part", "../processed.tiktok_image_audio.pt.lock"):
        (tiktok_root / "processed" / left).write_bytes(b"half")
    TikTok(tiktok_root)
    assert sorted(p.name for p in tiktok_root.iterdir()) == ["processed", "raw"]
    assert [p.name for p in (tiktok_root / "processed").iterdir()] == ["tiktok_image_audio.pt"]


class Overtaken(TikTok):
    r"""Its raw files change after they were read and before they are cached."""

    def build(self) -> InteractionTables:
        tables = super().build()
        os.utime(Path(self.raw_dir) / "image_feat.npy", (1, 1))
        return tables


def test_raw_files_that_change_while_read_are_read_again(tiktok_root: Path) -> None:
    Overtaken(tiktok_root)
    Slow.builds, Slow.leave = 0, threading.Event()
    Slow.leave.set()
    Slow(tiktok_root)
    assert Slow.builds == 1


def test_read_only_root_is_processed_in_memory(
    tiktok_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Root may write here in spite of the mode: the mark is respected all the same.
    tiktok_root.chmod(0o555)
    try:
        with caplog.at_level(logging.WARNING):
            assert TikTok(tiktok_root).num_items == 12
    finally:
        tiktok_root.chmod(0o755)
    assert not (tiktok_root / "processed").exists()
    assert [r.getMessage() for r in caplog.records] == [
        f"{tiktok_root} is read-only: nothing is cached"
    ]


def test_nothing_is_downloaded_into_a_read_only_folder(tiktok_root: Path) -> None:
    raw = tiktok_root / "raw"
    (raw / "valMat.pkl").unlink()
    raw.chmod(0o555)
    try:
        with pytest.raises(FileNotFoundError, match=rf"'valMat\.pkl': expected in .*{raw}"):
            TikTok(tiktok_root)
    finally:
        raw.chmod(0o755)
    assert not (raw / "valMat.pkl.part").exists()


def test_unwritable_root_is_processed_in_memory(
    tiktok_root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(interaction_dataset.os, "makedirs", refuse)
    with caplog.at_level(logging.WARNING):
        assert TikTok(tiktok_root).num_items == 12
    assert not (tiktok_root / "processed").exists()
    assert "cannot be written (no): nothing is cached" in caplog.text


class WithGaps(InteractionDataset):
    def build(self) -> InteractionTables:
        train = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]])
        val, test = torch.tensor([[0], [2]]), torch.tensor([[1], [0]])
        splits = {"train": train, "val": val, "test": test}
        features = {"text": torch.ones(3, 2), "image": torch.eye(3)}
        features["image"][1] = 0
        has = torch.tensor([True, False, True])
        return InteractionTables(splits, 2, features, masks={"image": has})


@pytest.mark.parametrize("reloaded", [False, True])
def test_incomplete_modalities_are_kept_in_the_file(tmp_path: Path, reloaded: bool) -> None:
    dataset = WithGaps(tmp_path)
    if reloaded:
        assert (tmp_path / "processed" / "data.pt").is_file()
        dataset = WithGaps(tmp_path)
    assert dataset.incomplete == ("image",)
    assert list(dataset.features) == ["text", "image"]
    for split in ("train", "val", "test"):
        assert dataset.view(split)["item"].has_image.tolist() == [True, False, True]


def test_public_sets_number_their_users_and_items(tiktok_root: Path) -> None:
    dataset = TikTok(tiktok_root)
    assert dataset.user_ids.equals(pd.RangeIndex(4))
    assert dataset.item_ids.equals(pd.RangeIndex(12))
    assert dataset.items is None
    assert dataset.incomplete == ()
