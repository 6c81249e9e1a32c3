r"""A folder in the place of another, of which the old or the new one is there at every moment."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ModuleNotFoundError:  # Windows
    fcntl = None  # type: ignore[assignment]

_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_RANDOM = "[a-z0-9_]" * 8  # of tempfile
_UNFIT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}


@contextmanager
def replacing(path: Path, check: Callable[[], object]) -> Iterator[Path]:
    r"""A new folder, which takes the place of ``path`` at the end of the block.

    It lies beside ``path`` as ``.<name>.<random>.part``. Nothing is left of it after an error; what
    processes left that were killed is removed here.

    Args:
        path: The place; a folder there is replaced.
        check: Called before anything is written, and before the place is taken: raises where that
            must not be.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        check()
        _recover(path)
        _remove_leftovers(path)
        new = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        alive = _lock(new, wait=False)
    try:
        yield new
        if alive is not None:
            with suppress(OSError):  # a system where folders cannot be synced
                os.fsync(alive)
        with _locked(path.parent):
            check()
            _put(new, path)
    finally:
        shutil.rmtree(new, ignore_errors=True)  # the old one, by now, where all went well
        if alive is not None:
            os.close(alive)


def recover(path: Path) -> None:
    r"""Puts back what a killed process had moved out of its place, where there is nothing now."""
    if not path.exists() and _left(path, "old"):
        with suppress(OSError), _locked(path.parent):
            _recover(path)


def _put(new: Path, path: Path) -> None:
    if not path.exists():
        os.rename(new, path)
    elif not _exchanged(new, path):
        old = new.with_suffix(".old")
        os.rename(path, old)
        try:
            os.rename(new, path)
        except OSError:
            os.rename(old, path)
            raise
        os.rename(old, new)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchanges two folders in one step; ``False`` where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, TypeError, AttributeError):
        return False
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNFIT:
        return False
    raise OSError(number, os.strerror(number), str(other))


def _recover(path: Path) -> None:
    left = _left(path, "old")
    if left and not path.exists():
        os.rename(left[-1], path)


def _remove_leftovers(path: Path) -> None:
    """Removes what dead processes left; those that live hold a lock on theirs."""
    for old in _left(path, "old"):
        with suppress(OSError):
            os.rename(old, old.with_suffix(".part"))  # so that what is called old is whole
    for part in _left(path, "part"):
        lock = _lock(part, wait=False)
        if lock is not None:
            shutil.rmtree(part, ignore_errors=True)
            os.close(lock)


def _left(path: Path, kind: str) -> list[Path]:
    if not path.parent.is_dir():
        return []
    found = path.parent.glob(f".*.{_RANDOM}.{kind}")
    size = len(kind) + 10
    return sorted(p for p in found if p.name[:-size] == f".{path.name}")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; it ends with the process."""
    lock = _lock(folder, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, wait: bool) -> int | None:
    """A lock that ends when it is closed; ``None`` where another has it, or there are none."""
    if fcntl is None:
        return None
    try:
        lock = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(lock)
        return None
    return lock
