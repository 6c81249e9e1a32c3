r"""Amazon's ratings, metadata and images."""

from __future__ import annotations

import array
import gzip
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from gtc_pyg.datasets import AmazonReviews
from tests.bad_data.case import Case, cut, nothing, write_bytes, write_line
from tests.bad_data.folders import CATEGORY, IMAGES, ITEMS, META, RATINGS, write_amazon

rating = partial(write_line, RATINGS, 4)
LINE = f"{RATINGS}, line 4: "
GZ = "not a whole gzip file, after line "
ANEW, LITERAL = "copy or download it anew", "expected a dictionary with 'asin'"


def read(root: Path, **options: Any) -> AmazonReviews:
    return AmazonReviews(root, **{"category": CATEGORY, **options})


def meta(*lines: str) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        with gzip.open(raw / META, "wt") as file:
            file.writelines(f"{line}\n" for line in lines)

    return edit


def add(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda raw: (raw / name).write_bytes((raw / name).read_bytes() + content)


def flip(raw: Path) -> None:
    content = bytearray((raw / META).read_bytes())
    content[-5] ^= 1  # of the checksum
    (raw / META).write_bytes(content)


def image(number: int, column: int, value: float) -> Callable[[Path], None]:
    def edit(raw: Path) -> None:
        with open(raw / IMAGES, "r+b") as file:
            file.seek((number - 1) * 16394 + 10 + 4 * column)
            array.array("f", [value]).tofile(file)

    return edit


EVIL = f"{{'asin': '{ITEMS[0]}', 'title': open('it_has_run', 'w')}}"
TABLE = [
    ("nan rating", rating("A1,B000000001,nan,13"), LINE + "rating", "'nan'", "expected a number"),
    (
        "text rating",
        rating("A1,B000000001,good,13"),
        LINE + "rating",
        "'good'",
        "expected a number",
    ),
    ("no rating", rating("A1,B000000001,,13"), LINE + "rating", "''", "expected a number"),
    ("no time", rating("A1,B000000001,5.0"), LINE + "time", "is", "expected whole seconds"),
    (
        "date",
        rating("A1,B000000001,5.0,2014-01-01"),
        LINE + "time",
        "'2014-01-01'",
        "whole seconds",
    ),
    ("no user", rating(",B000000001,5.0,13"), LINE + "user", "''", "expected an id"),
    ("space in id", rating("A 1,B000000001,5.0,13"), LINE + "user", "'A 1'", "expected an id"),
    (
        "emoji id",
        rating("\N{RED APPLE},B000000001,5.0,13"),
        LINE + "user",
        "\N{RED APPLE}",
        "an id",
    ),
    ("blank", rating(""), LINE + "user", "is", "expected an id"),
    (
        "five fields",
        rating("A1,B000000001,5.0,13,1"),
        RATINGS,
        "line 4, saw 5",
        "expected a table of",
    ),
    (
        "quoted comma",
        rating('"A,1",B000000001,5.0,13'),
        RATINGS,
        "line 4, saw 5",
        "expected a table",
    ),
    (
        "header",
        write_line(RATINGS, 1, "user,item,rating,time"),
        "line 1: rating",
        "'rating'",
        "a number",
    ),
    (
        "three columns",
        write_bytes(RATINGS, b"a,b,1\n"),
        f"{RATINGS}, line 1",
        "3 col",
        "expected user",
    ),
    ("empty", write_bytes(RATINGS, b""), RATINGS, "No columns", "expected a table of user, item"),
    ("Latin-1", rating("A\xe9,B,5.0,13"), LINE + "user", "'A\xe9'", "expected an id"),
    (
        "no core",
        write_bytes(RATINGS, b"a,b,1,1\n"),
        RATINGS,
        "none of 1",
        "choose a smaller 'k_core'",
    ),
    ("code", meta(EVIL), f"{META}, line 1", "{'asin'", LITERAL),
    ("broken literal", meta("{'asin': 'B000000001', "), f"{META}, line 1", "B000000001", LITERAL),
    ("json", meta('{"asin": "B000000001", "title": null}'), f"{META}, line 1", "null", LITERAL),
    ("no dict", meta("{}", "['B000000001']"), f"{META}, line 1", "{}", LITERAL),
    ("no words", meta("{'asin': 'B000000001'}"), META, "10 items", "expected ('title', 'brand'"),
    (
        "endless line",
        meta("x" * (1 << 25)),
        f"{META}, line 1",
        "16,777,216",
        "one record to a line",
    ),
    ("cut gz", cut(META, 40), META, GZ, ANEW),
    ("gz without its end", cut(META, 8), META, GZ, ANEW),
    ("wrong checksum in gz", flip, META, GZ, ANEW),
    ("tail after gz", add(META, b"tail"), META, GZ, ANEW),
    ("no gz", write_bytes(META, b"{'asin': 'a'}\n"), META, GZ + "0", ANEW),
    ("empty gz", write_bytes(META, b""), META, "no words for any", "expected ('title', 'brand'"),
    ("cut image", cut(IMAGES, 4), f"{IMAGES}: record 10", "16390 bytes", "expected 16394"),
    ("nan image", image(5, 7, np.nan), f"{IMAGES}: record 5, number 7", "nan", "expected finite"),
    (
        "inf image",
        image(2, 4095, np.inf),
        f"{IMAGES}: record 2, number 4095",
        "inf",
        "expected finite",
    ),
    ("no image", write_bytes(IMAGES, bytes(16394)), IMAGES, "none of 1 records", "expected some"),
]


def encoder(out: np.ndarray) -> dict[str, object]:
    return {"text_encoder": lambda texts: out, "text_name": "mine"}


OPTIONS = [
    (
        {"category": "Cell Phones"},
        "'category'",
        "got 'Cell Phones'",
        "must be as in the publisher's",
    ),
    ({"category": "../Baby"}, "'category'", "got '../Baby'", "must be as in the publisher's"),
    ({"k_core": 0}, "'k_core'", "got 0", "must be at least 1"),
    ({"text_encoder": len}, "'text_name'", "got None", "must go with 'text_encoder'"),
    ({"text_name": "a"}, "'text_name'", "got 'a' and None", "must go with 'text_encoder'"),
    ({"text_encoder": len, "text_name": "a/b"}, "'text_name'", "'a/b'", "letters, digits"),
    (encoder(np.ones((3, 2))), "'text_encoder'", "got [3, 2]", "one row for each of 8 texts"),
    (encoder(np.full((8, 2), np.nan)), "mine: row 0, column 0", "nan", "expected finite"),
]
CASES = [
    Case(f"amazon: {name}", spoil, read, where, value, remedy, write=write_amazon)
    for name, spoil, where, value, remedy in TABLE
] + [
    Case(
        f"amazon: {', '.join(options)} {number}",
        nothing,
        partial(read, **options),
        where,
        value,
        remedy,
        write=write_amazon,
    )
    for number, (options, where, value, remedy) in enumerate(OPTIONS)
]
