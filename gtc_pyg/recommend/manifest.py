r"""What a saved recommender says of itself: ``config.yaml``, and ``SHA256SUMS`` of all files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gtc_pyg._version import __version__

FORMAT = "gtc-pyg recommender"
FORMAT_VERSION = 2
CONFIG, TENSORS, USERS, ITEMS = "config.yaml", "model.safetensors", "users.arrow", "items.arrow"
SUMS = "SHA256SUMS"
FILES = (CONFIG, TENSORS, USERS, ITEMS)
MOST_BYTES = 2**14
"""Of ``config.yaml``, for which PyYAML may take a second."""


def write(path: Path, entries: Mapping[str, Any]) -> None:
    r"""Writes the manifest of a folder whose other files are written.

    Args:
        path: The folder.
        entries: What is needed to read the files.

    Raises:
        ValueError: For entries that :func:`checked` would find too long.
    """
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "gtc_pyg": __version__}
    text = yaml.safe_dump({**head, **entries}, sort_keys=False, allow_unicode=True).encode()
    if len(text) > MOST_BYTES:
        raise ValueError(
            f"the settings take {len(text)} bytes, more than the {MOST_BYTES} that {CONFIG} may "
            f"have: save a model of fewer modalities, or of shorter names"
        )
    (path / CONFIG).write_bytes(text)
    write_sums(path)


def write_sums(path: Path) -> None:
    r"""Writes the checksums of a folder's files, which ``sha256sum -c`` reads, too."""
    sums = "".join(f"{_line(path, name)}\n" for name in FILES)
    (path / SUMS).write_bytes(sums.encode())


def checked(path: Path) -> dict[str, Any]:
    r"""The manifest of a folder whose files are all there and those that it was written with.

    Raises:
        FileNotFoundError: Where the folder or a file of it is missing.
        ValueError: For a foreign, newer or damaged folder.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    if not (path / CONFIG).is_file():
        raise FileNotFoundError(f"{path} lacks {[CONFIG]}: no saved recommender, or not all of it")
    try:
        config = _read(path)
        entries = config if isinstance(config, dict) else {}
        version = _shown(entries.get("format_version"))
    except OSError:
        raise
    except Exception as error:  # PyYAML lets through what its conversions raise
        raise ValueError(f"{path / CONFIG}: no YAML ({error!s:.300})") from error
    if entries.get("format") != FORMAT:
        raise ValueError(f"{path / CONFIG}: 'format' must be {FORMAT!r}: not a saved recommender")
    if version != str(FORMAT_VERSION):
        raise ValueError(
            f"{path / CONFIG}: 'format_version' is {version}, and this gtc-pyg ({__version__}) "
            f"reads {FORMAT_VERSION}: load it with gtc-pyg {_shown(entries.get('gtc_pyg'))}, which "
            f"saved it, or train and save it again"
        )
    missing = [name for name in (*FILES, SUMS) if not (path / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{path} lacks {missing}: no saved recommender, or not all of it")
    with (path / SUMS).open("rb") as file:
        lines = file.read(1024).decode(errors="replace").split("\n")
    for name in FILES:
        if _line(path, name) not in lines:
            raise ValueError(
                f"{path / name}: the checksum is not that of {SUMS}: damaged or exchanged"
            )
    return entries


class _Loader(yaml.SafeLoader):
    """No aliases, which :func:`write` never writes: a few lines of them fill any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def _read(path: Path) -> Any:
    with (path / CONFIG).open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return yaml.load(text.decode(), _Loader)


def _shown(value: Any) -> str:
    return value[:80] if isinstance(value, str) else f"{value!r:.80}"


def format_of(path: Path) -> Any:
    r"""What the folder says it is; ``None`` where nothing can be read."""
    try:
        config = _read(path)
    except Exception:
        return None
    return config.get("format") if isinstance(config, dict) else None


def _line(path: Path, name: str) -> str:
    """As ``sha256sum`` writes it."""
    with (path / name).open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}"
