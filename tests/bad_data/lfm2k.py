r"""LFM2k's files, the tags beside them included."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, save_npz

from gtc_pyg.datasets import LFM2k
from tests.bad_data.case import Case, cut, write_bytes, write_line, write_npy
from tests.bad_data.folders import write_lfm2k

INTER, GRAPH, TAGS = "lfm2k.inter", "knn10_image_B.npz", "items.tsv"
HEADER = b"itemID\tartistID\ttags\n"


def read(root: Path) -> LFM2k:
    return LFM2k(root, spectral_dim=3)


def read_tags(root: Path) -> None:
    read(root).item_tags()


def with_processed(root: Path) -> None:
    write_lfm2k(root)
    read(root)


def graph(size: int) -> Callable[[Path], object]:
    return lambda raw: save_npz(raw / GRAPH, csr_matrix(np.eye(size)))


TABLE = [
    (
        "missing column",
        write_line(INTER, 1, "userID\titemID\tlabel"),
        INTER,
        "'x_label'",
        "expected userID",
    ),
    (
        "negative id",
        write_line(INTER, 4, "-1\t2\t0"),
        f"{INTER}, line 4: userID",
        "'-1'",
        "expected a non-negative integer",
    ),
    (
        "float id",
        write_line(INTER, 4, "1.0\t2\t0"),
        f"{INTER}, line 4: userID",
        "'1.0'",
        "expected a non-negative integer",
    ),
    (
        "past the rows",
        write_line(INTER, 4, "1\t99\t0"),
        f"{INTER}, line 4: item id",
        "99",
        "expected 0 to 11",
    ),
    (
        "leak",
        write_line(INTER, 12, "0\t0\t2"),
        f"{INTER}, line 12",
        "user 0, item 0",
        "(a leak), expected in one",
    ),
    (
        "no test",
        write_bytes(INTER, b"userID\titemID\tx_label\n0\t0\t0\n0\t1\t1\n"),
        INTER,
        "the test split is empty",
        "at least one",
    ),
    (
        "rows",
        write_npy("vggish.npy", np.ones((13, 2))),
        "vggish.npy",
        "13 rows",
        "expected one row per item",
    ),
    (
        "nan",
        write_npy("whisper.npy", np.full((12, 2), np.nan)),
        "whisper.npy: row 0",
        "nan",
        "expected finite",
    ),
    (
        "infinity",
        write_npy("whisper.npy", np.full((12, 2), np.inf)),
        "whisper.npy: row 0",
        "inf",
        "expected finite",
    ),
    ("cut npy", cut("whisper.npy", 1), "whisper.npy", "not a whole", "copy or download it anew"),
    ("graph rows", graph(14), GRAPH, "14 rows", "expected one row per item"),
    (
        "graph weight",
        lambda raw: save_npz(raw / GRAPH, csr_matrix(np.full((12, 12), np.nan))),
        f"{GRAPH}: 'data'",
        "nan",
        "expected finite",
    ),
]
TAG_TABLE = [
    (
        "id past the items",
        HEADER + b"12\t7\trock\n",
        f"{TAGS}, line 2: itemID",
        "'12'",
        "expected 0 to 11",
    ),
    (
        "negative id",
        HEADER + b"-1\t7\trock\n",
        f"{TAGS}, line 2: itemID",
        "'-1'",
        "expected 0 to 11",
    ),
    (
        "text id",
        HEADER + b"1\t7\trock\nx\t7\tpop\n",
        f"{TAGS}, line 3: itemID",
        "'x'",
        "expected 0 to 11",
    ),
    (
        "5,000 digits",
        HEADER + b"9" * 5000 + b"\t7\tpop\n",
        f"{TAGS}, line 2: itemID",
        "'999",
        "expected 0 to 11",
    ),
    (
        "missing column",
        b"item\ttags\n0\trock\n",
        f"{TAGS}, line 1",
        "'itemID'",
        "expected itemID and tags",
    ),
    ("empty file", b"", f"{TAGS}, line 1", "'itemID'", "expected itemID and tags"),
    ("Latin-1", HEADER + b"1\t7\tchanson fran\xe7aise\n", TAGS, "0xe7", "expected text in UTF-8"),
]
CASES = [
    Case(f"lfm2k: {name}", spoil, read, where, value, remedy, write=write_lfm2k)
    for name, spoil, where, value, remedy in TABLE
] + [
    Case(
        f"lfm2k's tags: {name}",
        write_bytes(TAGS, content),
        read_tags,
        where,
        value,
        remedy,
        write=with_processed,
    )
    for name, content, where, value, remedy in TAG_TABLE
]
