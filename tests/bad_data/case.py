r"""What a case of bad data is, and what it must leave alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Case:
    r"""Bad data, and what the error has to say of it.

    Attributes:
        name: For the report.
        spoil: Given the folder of the raw files, makes something wrong there.
        read: Given the root of the folders, reads them.
        where: In the message: file and line, or the argument.
        value: In the message: what was found.
        remedy: In the message: what to do, or what was expected.
        error: Its type, exactly.
        write: Writes files without a fault, below the root.
    """

    name: str
    spoil: Callable[[Path], object]
    read: Callable[[Path], object]
    where: str
    value: str
    remedy: str
    error: type[Exception] = ValueError
    write: Callable[[Path], object] = lambda root: None


def missing(
    what: str, file: str, read: Callable[[Path], object], write: Callable[[Path], object]
) -> Case:
    r"""A file that is not in its folder, which is there."""
    said = "raw", f"'{file}'", "expected in the folder"
    return Case(f"{what}: missing", nothing, read, *said, FileNotFoundError, write)


def nothing(folder: Path) -> None:
    r"""For cases in which arguments are wrong and files are not."""


def listing(folder: Path) -> dict[str, bytes | None]:
    r"""Everything below a folder by its relative path; of files the content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_bytes(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda raw: (raw / name).write_bytes(content)


def write_npy(name: str, array: np.ndarray) -> Callable[[Path], object]:
    return lambda raw: np.save(raw / name, array, allow_pickle=True)


def cut(name: str, num_bytes: int) -> Callable[[Path], object]:
    r"""Takes bytes from a file's end."""
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes()[:-num_bytes])


def unlink(*names: str) -> Callable[[Path], object]:
    return lambda raw: [(raw / name).unlink() for name in names]


def write_line(name: str, number: int, text: str) -> Callable[[Path], None]:
    r"""Puts a text in the place of one line, counted from 1."""

    def edit(raw: Path) -> None:
        lines = (raw / name).read_text().splitlines()
        lines[number - 1] = text
        (raw / name).write_text("\n".join(lines) + "\n")

    return edit
