from __future__ import annotations

import errno
import io
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from gtc_pyg.datasets.writing import locked, replacing, system_error, told

FORK = multiprocessing.get_context("fork")  # nothing is computed in these processes


def test_other_errors_are_left_as_they_are() -> None:
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] nowhere"), told("a"):
        raise FileNotFoundError(errno.ENOENT, "nowhere")
    with pytest.raises(ValueError, match=r"^b$"), told("a"):
        raise ValueError("b")


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "make room there and run it again"),
        (errno.EDQUOT, "make room there and run it again"),
        (errno.EFBIG, "make room there and run it again"),
        (errno.EROFS, "choose another place, or allow writing there"),
        (errno.EACCES, "choose another place, or allow writing there"),
        (errno.EPERM, "choose another place, or allow writing there"),
        (errno.ENOTDIR, "choose another place, or allow writing there"),
        (errno.EEXIST, "choose another place, or allow writing there"),
    ],
)
def test_error_keeps_its_type_and_names_path_reason_and_remedy(number: int, remedy: str) -> None:
    error = OSError(number, "as the system has it")
    with pytest.raises(type(error)) as caught, told(Path("far/a.csv")):
        raise error
    assert str(caught.value) == f"cannot write far/a.csv: {os.strerror(number)}; {remedy}"
    assert type(caught.value) is type(error)
    assert caught.value.errno == number
    assert caught.value.__cause__ is error


class Full(io.BytesIO):
    r"""What is small still fits."""

    def write(self, content: Any) -> int:
        if len(content) > 1000:
            raise OSError(errno.ENOSPC, "full")
        return super().write(content)


def test_torch_error_on_a_full_disk_becomes_an_os_error() -> None:
    with pytest.raises(RuntimeError, match=r"unexpected pos") as raw:
        torch.save(torch.zeros(1000), Full())
    assert system_error(raw.value) == errno.ENOSPC
    said = r"^cannot write a\.ckpt: No space left on device; make room"
    with pytest.raises(OSError, match=said) as caught, told("a.ckpt"):
        torch.save(torch.zeros(1000), Full())
    assert (type(caught.value), caught.value.errno) == (OSError, errno.ENOSPC)


def test_safetensors_error_for_a_wrong_place_becomes_an_os_error(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "a.safetensors"
    said = r"a\.safetensors: Not a directory; choose another place"
    with pytest.raises(OSError, match=said) as caught, told(path):
        save_file({"x": torch.zeros(3)}, path)
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.EIO, "x"), errno.EIO),
        (OSError("without a number"), 0),
        (RuntimeError("alone"), 0),
        (ValueError("said by others (os error 28)"), 0),
        (SafetensorError("I/O error (os error 28) at path"), errno.ENOSPC),
        (SafetensorError("no number"), 0),
    ],
)
def test_the_number_of_the_systems_error(error: Exception, number: int) -> None:
    assert system_error(error) == number


def test_a_value_error_that_follows_one_of_the_system_is_its_own() -> None:
    with pytest.raises(ValueError, match=r"^what was read is wrong$"), told("a"):
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError:
            raise ValueError("what was read is wrong") from None


def counted(path: Path, times: int) -> None:
    r"""Adds 1 to the number in a file, again and again."""
    for _ in range(times):
        with locked(path):
            before = int(path.read_text())
            with replacing(path) as beside:
                beside.write_text(str(before + 1))


def test_processes_take_turns_and_readers_see_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("0")
    workers = [FORK.Process(target=counted, args=(path, 25)) for _ in range(4)]
    for worker in workers:
        worker.start()
    seen = [0]
    while any(worker.is_alive() for worker in workers):
        seen.append(int(path.read_text()))
    for worker in workers:
        worker.join()
    assert path.read_text() == "100"
    assert seen == sorted(seen)
    assert [p.name for p in tmp_path.iterdir()] == ["number"]


def test_a_lock_that_is_taken_is_refused_in_one_line(tmp_path: Path) -> None:
    def other() -> None:
        with locked(tmp_path / "a", "busy: wait"):
            raise AssertionError("two are in")

    with ThreadPoolExecutor(1) as pool:
        with locked(tmp_path / "a"):
            assert repr(pool.submit(other).exception()) == "RuntimeError('busy: wait')"
        with locked(tmp_path / "a", "busy: wait"):
            pass
    assert list(tmp_path.iterdir()) == []


def killed_while_writing(path: Path) -> None:
    with locked(path), replacing(path) as beside:
        beside.write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_writer_leaves_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    worker = FORK.Process(target=killed_while_writing, args=(path,))
    worker.start()
    worker.join()
    assert path.read_text() == "old"
    assert {p.name for p in tmp_path.iterdir()} == {"a", ".a.part", "a.lock"}
    with locked(path, "busy"), replacing(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_what_fails_leaves_the_old_file_alone(tmp_path: Path, error: type) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as beside:
        beside.write_text("half")
        raise error
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]
