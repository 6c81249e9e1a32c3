r"""``config.yaml`` of a saved recommender: what the folder is, and the checksums of its files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gtc_pyg._version import __version__

FORMAT = "gtc-pyg recommender"
FORMAT_VERSION = 1
CONFIG, TENSORS, USERS, ITEMS = "config.yaml", "model.safetensors", "users.parquet", "items.parquet"
FILES = (TENSORS, USERS, ITEMS)


def write(path: Path, entries: Mapping[str, Any]) -> None:
    r"""Writes the manifest of a folder whose other files are written.

    Args:
        path: The folder.
        entries: What is needed to read the files.
    """
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "gtc_pyg": __version__,
        **entries,
        "sha256": {name: sha256(path / name) for name in FILES},
    }
    (path / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def checked(path: Path) -> dict[str, Any]:
    r"""The manifest of a folder whose files are all there and those that it was written with.

    Raises:
        FileNotFoundError: Where the folder or a file of it is missing.
        ValueError: For a foreign, newer or damaged folder.
    """
    if not path.is_dir():
        left = (
            [p.name for p in path.parent.glob(f".{path.name}.*.old")]
            if path.parent.is_dir()
            else []
        )
        more = f"; an interrupted save left {left[0]} beside it: rename that" if left else ""
        raise FileNotFoundError(f"{path}: no such folder{more}")
    missing = [name for name in (CONFIG, *FILES) if not (path / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{path} lacks {missing}: no saved recommender, or not all of it")
    try:
        config = _read(path)
    except OSError:
        raise
    except Exception as error:  # PyYAML lets through what its conversions raise
        raise ValueError(f"{path / CONFIG}: no YAML ({error!s:.300})") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(f"{path / CONFIG}: 'format' must be {FORMAT!r}: not a saved recommender")
    version = config.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path / CONFIG}: 'format_version' is {version!r}, and this gtc-pyg ({__version__}) "
            f"reads {FORMAT_VERSION}: load it with gtc-pyg {config.get('gtc_pyg')}, which saved it"
        )
    digests = config.get("sha256")
    for name in FILES:
        found = sha256(path / name)
        if not isinstance(digests, dict) or digests.get(name) != found:
            raise ValueError(
                f"{path / name}: the checksum is not that of {CONFIG}: damaged or exchanged"
            )
    return config


class _Loader(yaml.SafeLoader):
    """No aliases, which :func:`write` never writes: a few lines of them fill any memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def _read(path: Path) -> Any:
    return yaml.load((path / CONFIG).read_text(encoding="utf-8"), _Loader)


def format_of(path: Path) -> Any:
    r"""What the folder says it is; ``None`` where nothing can be read."""
    try:
        config = _read(path)
    except Exception:
        return None
    return config.get("format") if isinstance(config, dict) else None


def sha256(path: Path) -> str:
    r"""The checksum of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
