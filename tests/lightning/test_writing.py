r"""What a run says where its files cannot be written."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback

from gtc_pyg.datasets import PlantedPreferences
from gtc_pyg.lightning.checkpoints import read_checkpoint
from gtc_pyg.lightning.writing import named_errors
from gtc_pyg.models import LightGCN
from tests.test_no_room import file_size


class Removes(Callback):
    r"""Removes a folder in the second epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch == 1:
            shutil.rmtree(self.folder)


@pytest.mark.parametrize("gone", ["", "logs", "tensorboard"])
def test_a_folder_that_goes_is_named_in_one_line(
    dataset: PlantedPreferences, tmp_path: Path, train: Callable, gone: str, capfd: Any
) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileNotFoundError) as caught:
        train(LightGCN(60, 40, 8), dataset, out, callbacks=[Removes(out / gone)])
    message = str(caught.value)
    assert message.startswith(f"cannot write {out}/") and "its folder is gone" in message
    assert "\n" not in message
    assert "Traceback" not in capfd.readouterr().err


def test_lost_checkpoints_are_written_anew(
    dataset: PlantedPreferences, tmp_path: Path, train: Callable
) -> None:
    train(LightGCN(60, 40, 8), dataset, tmp_path, callbacks=[Removes(tmp_path / "checkpoints")])
    assert read_checkpoint(tmp_path / "checkpoints/model/last.ckpt")["epoch"] == 3


@pytest.mark.parametrize("most", [0, 500])
def test_logs_that_do_not_fit_are_named_in_one_line(
    dataset: PlantedPreferences, tmp_path: Path, train: Callable, most: int
) -> None:
    with file_size(most), pytest.raises(OSError, match="make room there") as caught:
        train(LightGCN(60, 40, 8), dataset, tmp_path)
    assert str(caught.value).startswith(f"cannot write {tmp_path}")
    assert caught.value.errno == errno.EFBIG


@pytest.mark.parametrize("place", ["", "logs", "tensorboard", "checkpoints/model"])
def test_a_file_where_a_folder_belongs_is_named(
    dataset: PlantedPreferences, tmp_path: Path, train: Callable, place: str
) -> None:
    file = tmp_path / "out" / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    with pytest.raises(OSError, match=r"^cannot write .*; choose another place") as caught:
        train(LightGCN(60, 40, 8), dataset, tmp_path / "out")
    assert str(file) in str(caught.value)
    assert file.read_text() == "mine"


def test_errors_of_other_places_stay_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\]"), named_errors(tmp_path / "out"):
        (tmp_path / "other").read_text()
