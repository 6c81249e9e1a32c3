r"""CSV files for ``read_table``."""

from __future__ import annotations

import gzip
import io
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from gtc_pyg.datasets import read_table
from tests.bad_data.case import Case, missing, write_bytes

FILE, GZ, ZIP = "mine.csv", "mine.csv.gz", "mine.csv.zip"
WHOLE, FORMAT = "expected a whole table in CSV", "'time_format' (in a command --time-format) names"


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(FILE, content)
    return file.getvalue()


PACKED = gzip.compress(b"user,item\n" + b"".join(b"u%d,i\n" % n for n in range(9999)))
DATES = b"user,when\na,2025-01-31\nb,31.01.2025\nc,soon\n"


def write(root: Path) -> None:
    (root / "raw").mkdir()


def read(root: Path, name: str = FILE, **options: Any) -> pd.DataFrame:
    return read_table(root / "raw" / name, ["user", "item"], **options)


TABLE = [
    # name, content, options, where, value, remedy
    ("empty file", b"", {}, FILE, "No columns to parse", WHOLE),
    ("too many fields", b"user,item\na,b\nc,d,e\n", {}, FILE, "line 3, saw 3", WHOLE),
    ("a field more in all rows", b"user,item\na,b,3\nc,d,4\n", {}, FILE, "does not match", WHOLE),
    ("quote left open", b'user,item\na,"b\nc,d\n', {}, FILE, "EOF inside string", WHOLE),
    ("a column twice", b"user,item,user\na,b,c\n", {}, FILE, "several columns 'user'", WHOLE),
    ("Latin-1", b"user,item\na,\xe9t\xe9\n", {}, FILE, "0xe9", "in UTF-8"),
    ("date", DATES, {"time": "when"}, "row 1 (from 0), column 'when'", "'31.01.2025'", FORMAT),
    ("missing date", b"user,when\na,\nb,2025-01-31\n", {"time": "when"}, "row 0", "nan", FORMAT),
    (
        "date of another form",
        DATES,
        {"time": "when", "time_format": "%d.%m.%Y"},
        f"{FILE}, row 0 (from 0), column 'when'",
        "'2025-01-31', expected a date as '%d.%m.%Y' says, 2 such in all",
        FORMAT,
    ),
    ("gz with a broken tail", PACKED[:-20], {"name": GZ}, GZ, "end-of-stream", WHOLE),
    ("gz with a tail", PACKED + b"tail", {"name": GZ}, GZ, "Not a gzipped file", WHOLE),
    ("gz that is none", b"user,item\na,b\n", {"name": GZ}, GZ, "Not a gzipped file", WHOLE),
    ("zip that is cut", zipped(PACKED)[:-30], {"name": ZIP}, ZIP, "not a zip file", WHOLE),
    ("gz with a wrong byte", PACKED[:99] + b"\0\0" + PACKED[101:], {"name": GZ}, GZ, "rror", WHOLE),
]
CASES = [
    Case(
        f"tables: {name}",
        write_bytes(str(options.get("name", FILE)), content),
        partial(read, **options),
        where,
        value,
        remedy,
        write=write,
    )
    for name, content, options, where, value, remedy in TABLE
] + [missing("tables", FILE, read, write)]
