from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from gtc_pyg.datasets.writing import locked, replacing


def checked_ending(path: Path) -> Path:
    r"""Refuses what ends neither in ``.parquet`` nor in ``.csv``."""
    if path.suffix not in (".parquet", ".csv"):
        raise ValueError(f"'path' must end in .parquet or .csv (got {str(path)!r})")
    return path


def write_lists(
    path: Path,
    lists: Callable[[int], pd.DataFrame],
    starts: range,
    asked: Iterable[Any],
    update: Callable[[int], object],
) -> Path:
    r"""Writes lists part by part, so that an interrupted call can go on.

    Args:
        path: As :func:`checked_ending` gives it.
        lists: Gives the part that begins with a user.
        starts: Where parts begin.
        asked: All that the lists depend on; parts of another request are not taken.
        update: Told how many users were done.

    Raises:
        RuntimeError: Where another process answers the same request in the same place.
    """
    parts = path.with_name(f"{path.name}.{_digest(asked)[:12]}.parts")
    path.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process writes these lists to {path} now: wait for its end"
    with locked(parts, busy):
        parts.mkdir(exist_ok=True)
        files = [parts / f"{start:012d}{path.suffix}" for start in starts]
        for i, (start, file) in enumerate(zip(starts, files, strict=True)):
            if not file.exists():
                with replacing(file) as beside:
                    _save(lists(start), beside, header=i == 0)
            update(min(starts.step, starts.stop - start))
        joined = parts / f"joined{path.suffix}"
        with replacing(joined) as beside:
            if files:
                _join(files, beside)
            else:
                _save(lists(0), beside)
        os.replace(joined, path)
        shutil.rmtree(parts)
    return path


def _save(table: pd.DataFrame, path: Path, header: bool = True) -> None:
    if ".parquet" in path.name:
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False, header=header, lineterminator="\n")


def _join(files: list[Path], path: Path) -> None:
    if files[0].suffix == ".csv":
        with path.open("wb") as out:
            for file in files:
                with file.open("rb") as part:
                    shutil.copyfileobj(part, out)
        return
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, pq.read_schema(files[0])) as writer:
        for file in files:
            writer.write_table(pq.read_table(file))


def _digest(values: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype}{list(value.shape)}".encode())
            digest.update(value.contiguous().numpy().data)
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
