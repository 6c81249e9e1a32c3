r"""TikTok's pickled matrices and arrays."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix

from gtc_pyg.datasets import TikTok
from tests.bad_data.case import Case, write_bytes, write_npy
from tests.bad_data.folders import write_tiktok


class Call:
    r"""Pickled as a call, which would leave a file behind: every case looks for one."""

    def __init__(self, function: Callable[[str], object], argument: str) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return self.call


def matrix(entries: list[tuple[int, int]], shape: tuple[int, int] = (4, 12)) -> bytes:
    user, item = zip(*entries, strict=True) if entries else ((), ())
    return pickle.dumps(coo_matrix((np.ones(len(entries)), (user, item)), shape=shape))


def beyond() -> bytes:
    wrong = coo_matrix((np.ones(1), ([0], [8])), shape=(4, 12))
    wrong.coords = (wrong.coords[0], wrong.coords[1] + 4)
    return pickle.dumps(wrong)


def negative() -> bytes:
    wrong = coo_matrix((np.ones(1), ([0], [8])), shape=(4, 12))
    wrong.coords = (wrong.coords[0] - 1, wrong.coords[1])
    return pickle.dumps(wrong)


TRN, VAL, TST = "trnMat.pkl", "valMat.pkl", "tstMat.pkl"
IMAGE, AUDIO = "image_feat.npy", "audio_feat.npy"
TOUCH, OPEN = (os.system, "touch it_has_run"), (eval, "open('it_has_run', 'w')")
TYPES = "array types alone"
ANEW, NUMBERED = "copy or download it anew", "expected users numbered from 0"
PICKLES = [
    ("os.system", TRN, pickle.dumps(Call(*TOUCH)), "system", TYPES),
    ("eval", TRN, pickle.dumps(Call(*OPEN)), "'builtins.eval'", TYPES),
    ("nested", TST, pickle.dumps([Call(*TOUCH)]), "EMPTY_LIST", ANEW),
    ("no matrix", TRN, pickle.dumps({"a": 1}), "dict", "expected a SciPy matrix"),
    ("truncated", VAL, matrix([(0, 8)])[:-9], "bytes", ANEW),
    ("empty file", VAL, b"", "exhausted", ANEW),
    ("no pickle", VAL, b"<!DOCTYPE html><html>", "b'<'", ANEW),
    ("empty split", VAL, matrix([]), "the val split is empty", "expected at least one"),
    ("leak", TST, matrix([(0, 0)]), "user 0, item 0", "train split and in the test split (a leak)"),
    ("twice", TST, matrix([(0, 9), (0, 9)]), "user 0, item 9 occurs twice", "expected once"),
    ("shape", TST, matrix([(0, 9)], (4, 13)), "(4, 13)", "expected (4, 12) as in trnMat.pkl"),
    ("past the columns", VAL, beyond(), "column 12", "expected 0 to 11"),
    ("negative", VAL, negative(), "row -1", "expected 0 to 3"),
]
ARRAYS = [
    ("rows", IMAGE, np.ones((11, 2)), "11 rows", "expected one per item"),
    ("nan", AUDIO, np.full((12, 2), np.nan), "row 0, column 0 is nan", "expected finite content"),
    ("inf", AUDIO, np.full((12, 2), 1e300), "row 0, column 0 is inf", "(within float32)"),
    ("1-D", AUDIO, np.ones(12), "(12,)", "expected [num_items, num_features]"),
    ("objects", IMAGE, np.array([[None]]), "bject", ANEW),
    ("text", IMAGE, np.array([["a"]]), "<U1", "expected real numbers"),
    ("complex", IMAGE, np.ones((12, 2), dtype=complex), "complex128", "expected real numbers"),
]


def case(name: str, file: str, content: bytes | np.ndarray, value: str, remedy: str) -> Case:
    array = isinstance(content, np.ndarray)
    spoil = write_npy(file, content) if array else write_bytes(file, content)  # type: ignore[arg-type]
    return Case(f"tiktok: {name}", spoil, TikTok, file, value, remedy, write=write_tiktok)


def huge(raw: Path) -> None:
    for name, entry in ((TRN, (0, 0)), (VAL, (0, 8)), (TST, (0, 9))):
        (raw / name).write_bytes(matrix([entry], (2**30, 12)))


CASES = [case(*row) for row in PICKLES + ARRAYS]
CASES.append(
    Case("tiktok: a billion users", huge, TikTok, TRN, "1073741823", NUMBERED, write=write_tiktok)
)
