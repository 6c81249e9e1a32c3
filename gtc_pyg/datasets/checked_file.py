r"""Files of tensors that carry the checksum of all their bytes."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import IO, Any

import torch

_MARK = b"sha256 "
_DIGITS = 64


def save_checked(content: Any, path: Path) -> None:
    r"""Writes by ``torch.save``, with the SHA-256 of the bytes as comment of the zip archive.

    Any reader of such archives reads the file, :func:`torch.load` among them.

    Args:
        content: Tensors and plain values.
        path: The file.
    """
    with path.open("wb") as file:
        torch.save(content, file)
    with path.open("rb+") as file:
        file.seek(-2, 2)  # the length of the comment: 0 so far
        file.write(struct.pack("<H", len(_MARK) + _DIGITS) + _MARK)
        size = file.tell()
        file.write(_digest(file, size))


def load_checked(path: Path) -> Any:
    r"""Reads what :func:`save_checked` wrote, by ``torch.load`` with ``weights_only=True``.

    Raises:
        ValueError: If the file has no checksum, or another one than its bytes.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) - _DIGITS
        if size < 0 or _digest(file, size) != file.read():
            raise ValueError("its checksum is not that of its bytes")
        file.seek(0)
        return torch.load(file, weights_only=True)


def _digest(file: IO[bytes], size: int) -> bytes:
    r"""The checksum of the first ``size`` bytes ``[64]``; the file stands behind them."""
    digest, left = hashlib.sha256(), size
    file.seek(0)
    while chunk := file.read(min(left, 1 << 20)):
        digest.update(chunk)
        left -= len(chunk)
    return digest.hexdigest().encode()
