"""Locks, so that several commands share their work."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def lock_of(out: Path, *key: object) -> FileLock:
    """The lock of a file or folder, or of a part of it, which ends with the process."""
    name = hashlib.sha256("/".join(map(str, (out.resolve(), *key))).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"gtc-pyg-{os.getuid()}-{name}.lock")


@contextmanager
def claimed(out: Path, *key: object) -> Iterator[bool]:
    """Whether this process alone works on the trial: ``False`` where another one does."""
    lock = lock_of(out, *key)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
