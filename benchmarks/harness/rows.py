"""Result rows in CSV files, and locks, so that several commands share their work.

What is written lies beside, as ``<name>.part``, until it is whole, and is renamed then.
"""

import csv
import hashlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Appends rows, all or none, under a lock.

    Raises:
        ValueError: Where the file has another header, or a row has other columns.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock_of(path.parent):
        if path.exists():
            with path.open(newline="") as file:
                found = next(csv.reader(file), header)
            if list(found) != list(header):
                raise ValueError(f"{path} must have the header {list(header)} (got {found})")
        write_rows(path, header, [*read_rows(path), *rows])


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes a CSV file anew; columns that a row lacks stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Puts a text in the place of the file's, whose folders are made."""
    with replaced(path) as beside, beside.open("w", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """The name beside a file to write to, which takes the file's place when all went well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    yield beside
    beside.replace(path)


def lock_of(out: Path, *key: object) -> FileLock:
    """The lock of a file or folder, or of a part of it, which ends with the process."""
    name = hashlib.sha256("/".join(map(str, (out.resolve(), *key))).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"gtc-pyg-{os.getuid()}-{name}.lock")


@contextmanager
def claimed(out: Path, *key: object) -> Iterator[bool]:
    """Whether this process alone works on a part: ``False`` where another one does."""
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
