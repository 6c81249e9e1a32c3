r"""Writing: one process at a time, whole files or none, and errors that say what to do."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)

_ROOM, _PLACE = "make room there and run it again", "choose another place, or allow writing there"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST), _PLACE),
    **dict.fromkeys((errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP), _PLACE),
}


@contextmanager
def told(path: str | os.PathLike[str]) -> Iterator[None]:
    r"""An error of writing inside names what could not be written, why, and what to do.

    The type of an :class:`OSError` and its ``errno`` stay; what safetensors and ``torch.save`` make
    of one becomes one again. Errors that are none of a full disk, a missing permission or a place
    that cannot be written to are left as they are.

    Args:
        path: What is being written.

    Raises:
        OSError: ``cannot write <path>: <reason>; <what to do>``.
    """
    try:
        yield
    except Exception as error:
        number = system_error(error)
        if number not in _REMEDIES:
            raise
        reason, kind = os.strerror(number), type(error) if isinstance(error, OSError) else OSError
        out = kind(f"cannot write {os.fspath(path)}: {reason}; {_REMEDIES[number]}")
        out.errno = number
        raise out from error


def system_error(error: BaseException) -> int:
    r"""The ``errno`` of the system's error that an error is, or comes from; 0 where there is none.

    ``torch.save`` raises a :class:`RuntimeError` while the system's is handled, safetensors an
    error of its own that has the number in its text.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, OSError):
        return error.errno or 0
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number and type(error).__module__.startswith("safetensors") else 0


@contextmanager
def locked(path: str | os.PathLike[str], busy: str | None = None) -> Iterator[None]:
    r"""Lets one process or thread at a time in, of those that ask for the same path.

    The lock is the file ``<path>.lock``, in a folder that is there. It ends with the process, and
    its file goes when the lock is given back.

    Args:
        path: What is kept from others; it need not exist.
        busy: The error's text where another one is in. Where it is :obj:`None` one waits for the
            other's end, with a line in the log after two seconds.

    Raises:
        RuntimeError: With the text of :obj:`busy`.
        OSError: Where the lock's file cannot be made.
    """
    lock = FileLock(f"{os.fspath(path)}.lock", poll_interval=0.02)
    try:
        lock.acquire(timeout=2 if busy is None else 0)
    except Timeout:
        if busy is not None:
            raise RuntimeError(busy) from None
        logger.warning("another process works on %s: waiting for its end", os.fspath(path))
        lock.acquire()
    try:
        yield
    finally:
        # Before the lock is given back: who waits for it sees that its file is gone, and makes one.
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    r"""A place beside ``path`` to write to, which is handed to the disk and becomes ``path``.

    Whoever reads ``path`` meanwhile finds what was there before. Where something fails, that stays
    and nothing lies beside it. What a killed process leaves is overwritten by the next writer, so
    one at a time may be inside: by :func:`locked`, or in a folder of its own.

    Args:
        path: The file.
    """
    path = Path(path)
    beside = beside_of(path)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def beside_of(path: Path) -> Path:
    r"""Where :func:`replacing` writes."""
    return path.with_name(f".{path.name}.part")
