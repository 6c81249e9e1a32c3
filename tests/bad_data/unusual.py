r"""Data that look odd and are right: what has to come out of them."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix

from gtc_pyg.datasets import AmazonReviews, InteractionDataset, TikTok, from_frames, read_table
from tests.bad_data import amazon, lfm2k, mmrec
from tests.bad_data.folders import (
    META,
    RATINGS,
    TRAIN,
    metadata,
    write_amazon,
    write_lfm2k,
    write_mmrec,
    write_tiktok,
)

BOM, FILE = b"\xef\xbb\xbf", "mine.csv"


class Unusual(NamedTuple):
    r"""``found(root)`` has to be ``expected(root)``; both find nothing but the root."""

    name: str
    found: Callable[[Path], Any]
    expected: Any


def edges(dataset: InteractionDataset) -> list[list[int]]:
    return dataset[0]["user", "rates", "item"].edge_index.t().tolist()


def inter(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    def found(root: Path) -> Any:
        write_mmrec(root)
        path = root / "raw" / "toy.inter"
        path.write_bytes(change(path.read_bytes()))
        return edges(mmrec.read(root))

    return found


def tags(content: bytes) -> Callable[[Path], Any]:
    def found(root: Path) -> Any:
        write_lfm2k(root)
        (root / "raw" / "items.tsv").write_bytes(content)
        return lfm2k.read(root).item_tags()[:3]

    return found


def ratings(change: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    def found(root: Path) -> Any:
        write_amazon(root)
        path = root / "raw" / RATINGS
        path.write_bytes(change(path.read_bytes()))
        return edges(AmazonReviews(root, amazon.CATEGORY, k_core=2, images=False))

    return found


def usual_ratings(root: Path) -> Any:
    return ratings(lambda content: content)(root / "usual")


def title(root: Path) -> Any:
    write_amazon(root)
    records = [{**record, "title": "caf\xe9 \N{PEAR}\n\u202eso"} for record in metadata()]
    with gzip.open(root / "raw" / META, "wt", encoding="utf-8") as file:
        file.writelines(f"{record!r}\n" for record in records)
    items = AmazonReviews(root, amazon.CATEGORY, k_core=2, images=False).items
    assert items is not None
    return items["title"][0]


def untrained(root: Path) -> Any:
    write_tiktok(root)
    matrix = coo_matrix((np.ones(1), ([4], [8])), shape=(5, 12))
    for name in ("trnMat", "tstMat"):
        pairs = TRAIN if name == "trnMat" else [(2, 10)]
        user, item = zip(*pairs, strict=True)
        other = coo_matrix((np.ones(len(pairs)), (user, item)), shape=(5, 12))
        (root / "raw" / f"{name}.pkl").write_bytes(pickle.dumps(other))
    (root / "raw" / "valMat.pkl").write_bytes(pickle.dumps(matrix))
    dataset = TikTok(root, untrained_users=True)
    return dataset.view("val")["user", "rates", "item"].edge_label_index.tolist()


def left_out(write: Callable[[Path], Any], read: Callable[[Path], Any], name: str) -> Any:
    r"""How many users are left out, and the users of validation, with one who has no training."""

    def found(root: Path) -> Any:
        write(root)
        path = root / "raw" / name
        path.write_bytes(path.read_bytes().rstrip() + b"\n4\t8\t1\n")
        dataset = read(root)
        edge_index = dataset.view("val")["user", "rates", "item"].edge_label_index
        return dataset.num_left_out, 4 in edge_index[0], dataset.num_users

    return found


def ids(*names: Any) -> Callable[[Path], Any]:
    r"""The ids that come back of users and items with these names."""

    def found(root: Path) -> Any:
        table = pd.DataFrame({"user": np.repeat(pd.Index(names), 4), "item": [*names] * 4})
        text = {name: [float(i), 1.0] for i, name in enumerate(names)}
        dataset = from_frames(table, features={"text": text})
        assert dataset.user_ids.tolist() == dataset.item_ids.tolist()
        return dataset.user_ids.tolist()

    return found


def table(content: bytes, name: str = FILE, **options: Any) -> Callable[[Path], Any]:
    def found(root: Path) -> Any:
        (root / name).write_bytes(content)
        return read_table(root / name, ["user", "item"], **options).to_dict("list")

    return found


STRANGE = sorted(["a\nb", "a\r\nb", "\N{PEAR}\u200d\N{BANANA}", "x" * 100_000])
ONE = {"user": ["007"], "item": ["x"]}
DAY = pd.Timestamp("2025-01-31", tz="UTC")
TAGS = b"itemID\tartistID\ttags\r\n1\t7\trock \xf0\x9f\x8d\x90\r\n\r\n"
PAIRS = [list(pair) for pair in TRAIN]
UNUSUAL = [
    Unusual("inter with CRLF", inter(lambda content: content.replace(b"\n", b"\r\n")), PAIRS),
    Unusual("inter with BOM", inter(lambda content: BOM + content), PAIRS),
    Unusual("inter without its last line end", inter(bytes.rstrip), PAIRS),
    Unusual("inter with blank lines", inter(lambda c: c.replace(b"\n", b"\n\n")), PAIRS),
    Unusual("tags with CRLF and emoji", tags(TAGS), ["", "rock \N{PEAR}", ""]),
    Unusual("tags with BOM", tags(BOM + TAGS), ["", "rock \N{PEAR}", ""]),
    Unusual("ratings with CRLF", ratings(lambda c: c.replace(b"\n", b"\r\n")), usual_ratings),
    Unusual("ratings with BOM", ratings(lambda c: BOM + c), usual_ratings),
    Unusual("emoji and line ends in a title", title, "caf\xe9 \N{PEAR}\n\u202eso"),
    Unusual("users of the publisher's without training", untrained, [[4], [8]]),
    Unusual(
        "a user of MMRec's without training",
        left_out(write_mmrec, mmrec.read, "toy.inter"),
        (1, False, 5),
    ),
    Unusual(
        "a user of Last.fm's without training",
        left_out(write_lfm2k, lfm2k.read, "lfm2k.inter"),
        (1, False, 5),
    ),
    Unusual("emoji, line ends and long ids", ids(*STRANGE), STRANGE),
    Unusual("ids of 63 bits", ids(0, 5, 2**62, 2**63 - 1), [0, 5, 2**62, 2**63 - 1]),
    Unusual("negative ids", ids(-(2**63), -1, 0, 1), [-(2**63), -1, 0, 1]),
    Unusual("table with CRLF", table(b"user,item\r\n007,x\r\n"), ONE),
    Unusual("table with BOM", table(BOM + b"user,item\n007,x\n"), ONE),
    Unusual("table with quotes", table(b'"user","item"\n"007","x"\n'), ONE),
    Unusual(
        "table with quoted separators",
        table(b'user,item\n"a,1","b ""c""\nd"\n'),
        {"user": ["a,1"], "item": ['b "c"\nd']},
    ),
    Unusual(
        "ids that look missing",
        table(b"user,item\nNA,null\nNone,nan\n"),
        {
            "user": ["NA", "None"],
            "item": ["null", "nan"],
        },
    ),
    Unusual("table in gz", table(gzip.compress(b"user,item\n007,x\n"), "mine.csv.gz"), ONE),
    Unusual("emoji in a table", table("user\n\N{PEAR}\n".encode()), {"user": ["\N{PEAR}"]}),
    Unusual("days", table(b"when\n2025-01-31\n", time="when"), {"when": [DAY]}),
    Unusual(
        "days of another form",
        table(b"when\n31.01.2025\n", time="when", time_format="%d.%m.%Y"),
        {"when": [DAY]},
    ),
    Unusual("seconds", table(b"when\n1738281600\n", time="when"), {"when": [1738281600]}),
]
