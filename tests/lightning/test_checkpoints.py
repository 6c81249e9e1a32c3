import os
import resource

import pytest
import torch

from gtc_pyg.lightning import checkpoints
from gtc_pyg.lightning.checkpoints import CheckpointFiles, DamagedCheckpointError, read_checkpoint
from gtc_pyg.models import LightGCN


def state(epoch):
    return {"epoch": epoch, "state_dict": {"weight": torch.full((5000,), float(epoch))}}


def write(files, name, epoch):
    files.save_checkpoint(state(epoch), files.folder / f"{name}.ckpt")


@pytest.fixture
def files(tmp_path):
    """Epochs 0, the best, to 2."""
    files = CheckpointFiles(tmp_path / "run")
    write(files, "best", 0)
    for epoch in range(3):
        write(files, "last", epoch)
    return files


def epochs(folder):
    return {path.name: read_checkpoint(path)["epoch"] for path in folder.iterdir()}


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def overwrite(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def test_the_one_before_the_last_is_kept(files):
    assert epochs(files.folder) == {"best.ckpt": 0, "last.ckpt": 2, "previous.ckpt": 1}
    path, found = files.newest()
    assert (path.name, found["epoch"]) == ("last.ckpt", 2)


@pytest.mark.parametrize("harm", [cut, overwrite, empty])
def test_a_damaged_checkpoint_is_never_taken_for_a_whole_one(files, harm):
    harm(files.folder / "last.ckpt")
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged .*previous.ckpt, of epoch 2, is w"):
        path, found = CheckpointFiles(files.folder).newest()
    assert (path.name, found["epoch"]) == ("previous.ckpt", 1)
    for name in ("best", "previous"):
        harm(files.folder / f"{name}.ckpt")
    with pytest.raises(DamagedCheckpointError, match=r"(is damaged .*){3}No checkpoint is whole"):
        CheckpointFiles(files.folder).newest()


def test_damaged_last_checkpoint_leaves_the_one_before(files):
    again = CheckpointFiles(files.folder)
    again.anew = False
    cut(files.folder / "last.ckpt")
    with pytest.warns(UserWarning, match="damaged"):
        again.newest()
    write(again, "last", 2)
    assert epochs(files.folder) == {"best.ckpt": 0, "last.ckpt": 2, "previous.ckpt": 1}
    write(again, "last", 3)
    assert epochs(files.folder) == {"best.ckpt": 0, "last.ckpt": 3, "previous.ckpt": 2}


def test_between_the_best_and_the_last_the_best_is_the_newest(files):
    write(files, "best", 3)
    assert files.newest()[0].name == "best.ckpt"
    (files.folder / "last.ckpt").unlink()  # between the two renames
    assert files.newest()[0].name == "best.ckpt"


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_write_that_fails_leaves_what_was_there(files, monkeypatch, moment):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.os, moment, fail)
    with pytest.raises(OSError, match=r"cannot write .*last.ckpt: No space left.*make room"):
        write(files, "last", 3)
    monkeypatch.undo()
    assert files.newest()[1]["epoch"] == 2
    assert not list(files.folder.glob("*.part"))


def test_a_file_that_may_not_grow_is_no_checkpoint(files):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*last.ckpt: File too large"):
            write(files, "last", 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert epochs(files.folder) == {"best.ckpt": 0, "last.ckpt": 2, "previous.ckpt": 1}


def test_checkpoints_reach_the_disk_before_they_are_renamed(files, monkeypatch):
    order, sync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(checkpoints.os, "fsync", lambda *a: order.append("fsync") or sync(*a))
    monkeypatch.setattr(checkpoints.os, "replace", lambda *a: order.append("rename") or replace(*a))
    write(files, "best", 3)
    assert order == ["fsync", "rename", "fsync"]


def test_code_in_a_checkpoint_is_not_run(files, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"epoch": 9, "bomb": Bomb()}, files.folder / "last.ckpt")
    for read in (files.newest, lambda: files.load_checkpoint(files.folder / "last.ckpt")):
        with pytest.raises(ValueError, match=r"last.ckpt must hold tensors and plain values alone"):
            read()
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("lost", ["last", "best"])
def test_a_run_goes_on_though_a_checkpoint_is_damaged(dataset, tmp_path, train, lost):
    def fitted(out, epochs, **options):
        torch.manual_seed(0)
        options |= {"lr": 0.05, "epochs": epochs}
        return train(LightGCN(60, 40, 8), dataset, tmp_path / out, **options)

    whole = fitted("whole", 5)
    early = fitted("cut", 3)
    folder = tmp_path / "cut/checkpoints/model"
    cut(folder / f"{lost}.ckpt")
    holders = {
        n: torch.load(folder / f"{n}.ckpt", weights_only=True)["epoch"] + 1
        for n in ("last", "previous")
        if n != lost
    }
    if lost == "best" and early.best_epoch not in holders.values():
        with pytest.raises(ValueError, match=r"best.ckpt must hold the best epoch, 1, and is miss"):
            fitted("cut", 5, resume=True)
        return
    with pytest.warns(UserWarning, match=f"{lost}.ckpt is damaged"):
        result = fitted("cut", 5, resume=True)
    assert result.history == whole.history and result.best_epoch == whole.best_epoch
    for key, weight in whole.model.state_dict().items():
        assert torch.equal(result.model.state_dict()[key], weight)
