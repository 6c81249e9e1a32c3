r"""Readers of the files that go with Amazon's ratings until 2014."""

from __future__ import annotations

import ast
import gzip
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from gtc_pyg.datasets.raw_files import require_files
from gtc_pyg.transforms.k_core import k_core

_RATING = {  # column -> what it looks like, and in words
    "user": ("[!-~]+", "an id"),
    "item": ("[!-~]+", "an id"),
    "rating": (r"[0-9]+(\.[0-9]+)?", "a number"),
    "time": ("-?[0-9]{1,18}", "whole seconds"),
}
_ASIN = re.compile(rb"""['"]asin['"]\s*:\s*['"]([^'"]*)['"]""")
_IMAGE = np.dtype([("asin", "S10"), ("x", "<f4", (4096,))])
_IMAGES_AT_ONCE = 512
_LONGEST_LINE = 1 << 24  # bytes; records have a few thousand


def read_ratings(path: str, k: int) -> tuple[Tensor, list[str], list[str]]:
    r"""The interactions of the k-core ``[2, E]``, each once and sorted, and the sorted ids.

    Raises:
        ImportError: If pandas is missing.
        ValueError: If a line is not user, item, rating and time, or nothing is left.
    """
    require_files(path)
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError('reading ratings needs pandas: pip install "gtc-pyg[data]"') from error
    form: dict[str, Any] = {"header": None, "dtype": "category", "quoting": 3, "na_filter": False}
    try:
        with open(path, "rb") as file, _progress(file, path) as watched:
            frame = pd.read_csv(watched, skip_blank_lines=False, **form)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = str(error).strip()
        raise ValueError(f"{path}: expected a table of {', '.join(_RATING)} ({reason})") from error
    if frame.shape[1] != len(_RATING):
        raise ValueError(f"{path}, line 1: {frame.shape[1]} columns, expected {', '.join(_RATING)}")
    for index, (name, (pattern, what)) in enumerate(_RATING.items()):
        values = frame[index].cat.categories.astype(str)
        wrong = np.append(~np.asarray(values.str.fullmatch(pattern), dtype=bool), True)
        bad = wrong[frame[index].cat.codes]  # -1, the last entry, is a field that is not there
        if bad.any():
            row = int(bad.argmax())
            value = frame[index].iloc[row]
            shown = repr(value) if isinstance(value, str) else "missing"
            raise ValueError(f"{path}, line {row + 1}: {name} is {shown}, expected {what}")
    codes = [frame[index].cat.codes.to_numpy().astype(np.int64) for index in range(2)]
    names = [frame[index].cat.categories.to_numpy(dtype=str) for index in range(2)]
    pairs = np.unique(codes[0] * names[1].size + codes[1])
    edge_index = torch.from_numpy(np.stack(np.divmod(pairs, names[1].size)))
    edge_index = edge_index[:, k_core(edge_index, names[0].size, names[1].size, k)]
    if edge_index.size(1) == 0:
        raise ValueError(
            f"{path}: none of {pairs.size} interactions is in the {k}-core, expected some; choose "
            "a smaller 'k_core'"
        )
    found = [torch.unique(row, return_inverse=True) for row in edge_index]
    users, items = (
        list(map(str, n[kept.numpy()])) for n, (kept, _) in zip(names, found, strict=True)
    )
    return torch.stack([inverse for _, inverse in found]), users, items


def read_metadata(path: str, items: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    r"""The records of :obj:`items` by id; of two the last. Other lines are not parsed.

    Raises:
        ValueError: If the file is no whole gzip file, or a line no dictionary with an ``asin``.
    """
    wanted = {item.encode() for item in items}
    records: dict[str, Mapping[str, Any]] = {}
    for number, line in enumerate(_lines(path), start=1):
        named = _ASIN.findall(line)
        if (named and wanted.isdisjoint(named)) or not line.strip():
            continue
        try:
            record = ast.literal_eval(line.decode().strip())
        except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: {line[:60]!r} is no Python literal, expected a "
                f"dictionary with 'asin' ({error})"
            ) from None
        if not isinstance(record, dict) or not isinstance(record.get("asin"), str):
            raise ValueError(
                f"{path}, line {number}: {line[:60]!r}, expected a dictionary with 'asin'"
            )
        if record["asin"].encode() in wanted:
            records[record["asin"]] = record
    return records


def read_images(path: str, items: Sequence[str]) -> tuple[Tensor, Tensor]:
    r"""The images of :obj:`items`, which are sorted: ``[N, 4096]``, and who has one ``[N]``.

    Records of other items are skipped; of two of the same the last counts.

    Raises:
        ValueError: If the last record is cut off, a number is not finite, or no item has an image.
    """
    require_files(path)
    count, rest = divmod(os.path.getsize(path), _IMAGE.itemsize)
    if rest:
        raise ValueError(
            f"{path}: record {count + 1} has {rest} bytes, expected {_IMAGE.itemsize}: an id of 10 "
            "bytes and 4096 float32"
        )
    ids = np.array(items, dtype=bytes)
    x, mask = np.zeros((ids.size, 4096), dtype=np.float32), np.zeros(ids.size, dtype=bool)
    with (
        open(path, "rb") as file,
        tqdm(desc=os.path.basename(path), total=count, leave=False) as bar,
    ):
        for first in range(0, count, _IMAGES_AT_ONCE):
            records = np.fromfile(file, _IMAGE, _IMAGES_AT_ONCE)
            row = np.searchsorted(ids, records["asin"]).clip(max=ids.size - 1)
            known = np.flatnonzero(ids[row] == records["asin"])
            found = records["x"][known]
            wrong = ~np.isfinite(found)
            if wrong.any():
                which, column = np.argwhere(wrong)[0]
                raise ValueError(
                    f"{path}: record {first + int(known[which]) + 1}, number {column} is "
                    f"{found[which, column]}, expected finite numbers"
                )
            x[row[known]], mask[row[known]] = found, True
            bar.update(records.size)
    if not mask.any():
        raise ValueError(
            f"{path}: none of {count} records is of one of the {ids.size} items, expected some"
        )
    return torch.from_numpy(x), torch.from_numpy(mask)


def _lines(path: str) -> Iterator[bytes]:
    require_files(path)
    number = 0
    try:
        with (
            open(path, "rb") as file,
            _progress(file, path) as watched,
            gzip.open(watched, "rb") as lines,
        ):
            while line := lines.readline(_LONGEST_LINE + 1):
                number += 1
                if len(line) > _LONGEST_LINE:
                    raise ValueError(
                        f"{path}, line {number} has over {_LONGEST_LINE:,} bytes: expected one "
                        "record to a line"
                    )
                yield line
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"{path}: not a whole gzip file, after line {number} ({error}); copy or download it "
            "anew"
        ) from error


def _progress(file: Any, path: str) -> Any:
    form = {"desc": os.path.basename(path), "unit": "B", "unit_scale": True, "leave": False}
    return tqdm.wrapattr(file, "read", os.path.getsize(path), **form)
