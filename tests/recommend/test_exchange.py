import errno
import itertools
import os
import signal
import subprocess
import sys

import pytest

from gtc_pyg.recommend import exchange
from gtc_pyg.recommend.exchange import recover, replacing

# Replaces a folder in one process per step, each killed before that step of the file system.
ALONE = """
import importlib.util, os, signal, sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("exchange", sys.argv[1])
exchange = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exchange)  # in milliseconds, without the package
place, way = Path(sys.argv[2]), sys.argv[3]
"""
KILLED = """
if way != "exchange":
    exchange._exchanged = lambda one, other: False
STEPS = ("open", "os.", "shutil.", "tempfile.", "fcntl.", "ctypes.")

def states():
    return sorted(p.name for p in place.parent.iterdir())

def whole():
    return {file.name: file.read_text() for file in sorted(place.iterdir())}

def replace(text):
    with exchange.replacing(place, lambda: None) as new:
        for name in "ab":
            (new / name).write_text(text)

replace("old 0")
for step in range(1, 1000):
    old, new, left = f"old {step - 1}", f"old {step}", [step]
    child = os.fork()
    if child == 0:
        def hook(event, args):
            if event.startswith(STEPS):
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        replace(new)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    missing = not place.exists()
    exchange.recover(place)
    found = whole()
    assert found in ({"a": old, "b": old}, {"a": new, "b": new}), (step, found)
    assert way != "exchange" or not missing, step
    print("missing" if missing else "there", "new" if found["a"] == new else "old")
    replace(new)
    assert states() == [place.name], (step, states())
    if ended == 0:
        break
"""


@pytest.fixture
def place(tmp_path):
    return tmp_path / "place"


def fill(place, text, check=lambda: None):
    with replacing(place, check) as new:
        (new / "file").write_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="exchanging folders is Linux's")
@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_a_kill_at_any_step_leaves_the_old_or_the_new(place, way):
    command = [sys.executable, "-c", ALONE + KILLED, exchange.__file__, str(place), way]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) > 20 and {"there old", "there new"} <= set(lines)
    assert ("missing old" in lines) == (way == "two renames")


def test_a_folder_is_replaced_and_nothing_is_left(place):
    fill(place, "old")
    fill(place, "new")
    assert (place / "file").read_text() == "new"
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL])
def test_where_the_system_cannot_exchange_two_renames_do(place, monkeypatch, number):
    class Library:
        @staticmethod
        def renameat2(*args):
            exchange.ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(exchange.ctypes, "CDLL", lambda *args, **kwargs: Library)
    fill(place, "old")
    fill(place, "new")
    assert (place / "file").read_text() == "new"
    assert list(place.parent.iterdir()) == [place]


def test_where_the_second_rename_fails_the_old_one_is_back(place, monkeypatch):
    fill(place, "old")
    monkeypatch.setattr(exchange, "_exchanged", lambda one, other: False)
    rename = os.rename

    def broken(source, target):
        if str(source).endswith(".part"):
            raise OSError(errno.EIO, "broken")
        rename(source, target)

    monkeypatch.setattr(exchange.os, "rename", broken)
    with pytest.raises(OSError, match="broken"):
        fill(place, "new")
    assert (place / "file").read_text() == "old"
    assert list(place.parent.iterdir()) == [place]


def test_what_living_processes_write_is_not_removed(place):
    code = ALONE + (
        "with exchange.replacing(place, lambda: None) as new:\n"
        "    (new / 'file').write_text('theirs'); print(new, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, exchange.__file__, str(place), ""]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as other:
        theirs = other.stdout.readline().strip()
        fill(place, "mine")
        assert (place / "file").read_text() == "mine" and os.path.isdir(theirs)
        other.stdin.close()
        assert other.wait() == 0
    assert (place / "file").read_text() == "theirs"
    with subprocess.Popen(command, **pipes) as other:
        theirs = other.stdout.readline().strip()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert os.path.isdir(theirs)
    fill(place, "mine")
    assert list(place.parent.iterdir()) == [place]


def test_what_is_of_another_place_is_left_alone(place):
    names = (
        ".place.x.abcdefgh.old",
        ".place.abc.old",
        ".place2.abcdefgh.part",
        "place.abcdefgh.old",
    )
    for name in names:
        (place.parent / name).mkdir()
    recover(place)
    assert not place.exists()
    fill(place, "new")
    assert {p.name for p in place.parent.iterdir()} == {*names, "place"}


def test_what_was_moved_out_of_its_place_is_put_back(place):
    fill(place, "old")
    os.rename(place, place.parent / ".place.abcdefgh.old")
    recover(place)
    assert (place / "file").read_text() == "old"
    os.rename(place, place.parent / ".place.abcdefgh.old")
    fill(place, "new")
    assert (place / "file").read_text() == "new"
    assert list(place.parent.iterdir()) == [place]


def test_a_place_is_checked_again_when_it_is_taken(place):
    calls = itertools.count()

    def check():
        if next(calls) == 1:
            raise FileExistsError("taken")

    with pytest.raises(FileExistsError, match="taken"):
        fill(place, "new", check)
    assert list(place.parent.iterdir()) == []
