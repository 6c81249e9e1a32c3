r"""Folders in the format of MMRec."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, save_npz

from gtc_pyg.datasets import MMRecFolder
from tests.bad_data.case import Case, cut, nothing, unlink, write_bytes, write_line, write_npy
from tests.bad_data.folders import write_mmrec

line = partial(write_line, "toy.inter")
SOUND, TEXT, INTER = "sound_knn10_cos.npz", "text_feat.npy", "toy.inter"
ALL_CONTENT = ("text_feat.npy", "image_feat.npy", "image_knn10_cos.npz", "sound_knn10_cos.npz")
INTEGER, SAVE_NPZ = "expected a non-negative integer", "scipy.sparse.save_npz"
AS_SCIPY = "expected a matrix as SciPy writes it"


def read(root: Path, **options: int) -> MMRecFolder:
    return MMRecFolder(root, "toy", **{"spectral_dim": 3, **options})


def without_label(label: str) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        lines = (raw / INTER).read_text().splitlines()
        kept = [line for line in lines if not line.endswith(f"\t{label}")]
        (raw / INTER).write_text("\n".join(kept) + "\n")

    return edit


def commas(raw: Path) -> None:
    (raw / INTER).write_text((raw / INTER).read_text().replace("\t", ","))


def npz(**changes: object) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        parts = dict(np.load(raw / SOUND))
        parts = {key: value for key, value in {**parts, **changes}.items() if value is not None}
        np.savez(raw / SOUND, **parts)

    return edit


def index_12(raw: Path) -> None:
    indices = np.load(raw / SOUND)["indices"]
    indices[3] = 12
    npz(indices=indices)(raw)


def climbing_member(raw: Path) -> None:
    with zipfile.ZipFile(raw / SOUND, "w") as archive:
        archive.writestr("../climbs.npy", b"out")


def graph(matrix: object, name: str = SOUND) -> Callable[[Path], object]:
    return lambda raw: save_npz(raw / name, matrix)


def one_level_up(raw: Path) -> None:
    (raw / INTER).rename(raw.parent / INTER)


TABLE = [
    # name, how it is spoiled, where, value, remedy
    ("missing inter", unlink(INTER), "folder", "'toy.inter'", "expected in the folder"),
    ("inter outside raw", one_level_up, "/raw", "'toy.inter'", "it lies in"),
    ("missing content", unlink(*ALL_CONTENT), "/raw", "missing content", "<modality>_feat.npy"),
    ("missing column", line(1, "userID\titem\tx_label"), INTER, "'itemID'", "found userID, item"),
    ("commas", commas, INTER, "'userID'", "found userID,itemID,x_label"),
    ("empty file", write_bytes(INTER, b""), INTER, "No columns", "expected a tab-separated table"),
    ("header alone", write_bytes(INTER, b"userID\titemID\tx_label\n"), INTER, "empty", "at least"),
    ("UTF-16", write_bytes(INTER, "userID\t\u2603".encode("utf-16")), INTER, "0xff", "expected a"),
    ("too many fields", line(3, "0\t1\t0\t0\t0"), INTER, "line 3, saw 5", "expected a tab-sep"),
    ("too few fields", line(3, "0\t1"), "toy.inter, line 3: x_label", "''", "expected 0, 1 or 2"),
    ("text id", line(3, "u7\t1\t0"), "toy.inter, line 3: userID", "'u7'", INTEGER),
    ("fraction", line(3, "0\t1.5\t0"), "toy.inter, line 3: itemID", "'1.5'", INTEGER),
    ("negative id", line(3, "0\t-1\t0"), "toy.inter, line 3: itemID", "'-1'", INTEGER),
    ("no id", line(3, "\t1\t0"), "toy.inter, line 3: userID", "''", INTEGER),
    ("quoted id", line(3, '"0"\t1\t0'), "toy.inter, line 3: userID", "'\"0\"'", INTEGER),
    ("20 digits", line(3, f"0\t{'9' * 20}\t0"), "line 3: itemID", f"'{'9' * 20}'", INTEGER),
    ("18 digits", line(3, f"{'9' * 18}\t1\t0"), INTER, "9" * 18, "expected users numbered from 0"),
    ("past the rows", line(3, "0\t12\t0"), "line 3: item id", "12", "0 to 11 (12 rows of content)"),
    ("label", line(3, "0\t1\t3"), "toy.inter, line 3: x_label", "'3'", "expected 0, 1 or 2"),
    ("twice", line(3, "0\t0\t0"), "line 3", "user 0, item 0 occurs twice", "expected once"),
    ("leak", line(10, "0\t0\t1"), "line 10", "user 0, item 0", "val split (a leak), expected in"),
    ("no train", without_label("0"), INTER, "the train split is empty", "expected at least one"),
    ("no val", without_label("1"), INTER, "the val split is empty", "expected at least one"),
    ("no test", without_label("2"), INTER, "the test split is empty", "expected at least one"),
    ("rows", write_npy(TEXT, np.ones((13, 2))), TEXT, "13 rows", "expected one row per item"),
    ("graph rows", graph(csr_matrix(np.eye(13))), SOUND, "13 rows", "expected one row per item"),
    ("nan", write_npy(TEXT, np.full((12, 2), np.nan)), f"{TEXT}: row 0", "nan", "expected finite"),
    ("3-D", write_npy(TEXT, np.ones((12, 2, 2))), TEXT, "(12, 2, 2)", "expected [num_items, num_"),
    ("no columns", write_npy(TEXT, np.ones((12, 0))), TEXT, "(12, 0)", "expected [num_items, num_"),
    ("cut npy", cut(TEXT, 9), TEXT, "not a whole numeric .npy file", "copy or download it anew"),
    (
        "Git LFS",
        write_bytes(TEXT, b"version https://git-lfs"),
        TEXT,
        "not a whole numeric .npy file",
        "download it anew",
    ),
    ("indices", npz(indices=np.full(45, 12)), SOUND, "12 rows", AS_SCIPY),
    ("index", index_12, f"{SOUND}: 'indices'", "12", "expected 0 to 11"),
    ("indptr", npz(indptr=np.zeros(13, dtype=int)), f"{SOUND}: 'indptr'", "12 rows", AS_SCIPY),
    ("no indices", npz(indices=None), SOUND, "missing indices", SAVE_NPZ),
    (
        "weight",
        npz(data=np.ones(2)),
        f"{SOUND}: 'data'",
        "[2]",
        "expected one real number for each",
    ),
    ("not square", npz(shape=np.array([12, 13])), f"{SOUND}: shape", "[12, 13]", "square matrix"),
    ("objects", npz(data=np.array([None])), SOUND, "bject", "download it anew"),
    ("no zip", write_bytes(SOUND, b"PK\x03\x04 hello"), SOUND, "not", "download it anew"),
    ("cut zip", cut(SOUND, 30), SOUND, "not", "copy or download it anew"),
    ("climbing member", climbing_member, SOUND, "not an .npz file", "download it anew"),
    ("csc", graph(csc_matrix(np.eye(12))), f"{SOUND}: format", "'csc'", "expected 'csr'"),
]
MISSING = ("missing inter", "inter outside raw", "missing content")


def case(name: str, spoil: Callable[[Path], object], where: str, value: str, remedy: str) -> Case:
    error = FileNotFoundError if name in MISSING else ValueError
    return Case(f"mmrec: {name}", spoil, read, where, value, remedy, error, write_mmrec)


CASES = [case(*row) for row in TABLE]
CASES.append(
    Case(
        "mmrec: spectral_dim",
        nothing,
        partial(read, spectral_dim=0),
        "'spectral_dim'",
        "got 0",
        "must be at least 1",
        write=write_mmrec,
    )
)
