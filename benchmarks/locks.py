"""Locks, so that several commands share their work."""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds a lock on a file or folder until the process ends; ``False`` where another has it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@contextmanager
def claimed(out: Path, *key: object) -> Iterator[bool]:
    """Whether this process alone works on the trial: ``False`` where another one does."""
    name = hashlib.sha256("/".join(map(str, (out.resolve(), *key))).encode()).hexdigest()[:16]
    path = Path(tempfile.gettempdir()) / f"search-{os.getuid()}-{name}.lock"
    path.touch()
    with locked(path, wait=False) as mine:
        yield mine
