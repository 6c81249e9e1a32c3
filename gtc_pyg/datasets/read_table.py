r"""One's own CSV files as tables for :func:`gtc_pyg.datasets.from_frames`."""

from __future__ import annotations

import lzma
import os
import tarfile
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gtc_pyg.datasets.raw_files import require_files

if TYPE_CHECKING:
    import pandas as pd

_PACKED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError)


def read_table(
    path: str | os.PathLike[str],
    ids: Sequence[str] = (),
    time: str | None = None,
    time_format: str = "ISO8601",
) -> pd.DataFrame:
    r"""Reads a CSV file with a header, in UTF-8, by :func:`pandas.read_csv`.

    Text is the text that stands there, NA and null too; a text that is empty is missing, and in
    columns of numbers so is what :func:`pandas.read_csv` takes for missing. A byte order mark, line
    ends of any kind, quoted separators and line breaks, and a packed file (``.gz``, ``.zip``, ...)
    are read as they are meant.

    Args:
        path: The file.
        ids: Columns of ids, which are read as text: 007 stays 007.
        time: A column of times: numbers, or dates, which become datetimes in UTC.
        time_format: How the dates are written, as :func:`pandas.to_datetime` takes it: the
            default stands for ``2025-01-31`` and ``2025-01-31T10:00:00Z``, another is
            ``'%d.%m.%Y'``. (default: :obj:`"ISO8601"`)

    Raises:
        FileNotFoundError: If the file is missing.
        ModuleNotFoundError: If pandas is missing.
        ValueError: If it is no whole table, or a date is not written so; the message names file,
            row and value.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        message = 'read_table needs pandas: pip install "gtc-pyg[data]"'
        raise ModuleNotFoundError(message, name=error.name) from error
    path = os.fspath(path)
    require_files(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows longer than the header
            names = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
            again = [name for name, n in Counter(names.iloc[0]).items() if n > 1 and name]
            if again:
                raise ValueError(f"several columns {again[0]!r}")
            whole: dict[str, Any] = {"index_col": False, "low_memory": False}
            table = pd.read_csv(path, dtype=dict.fromkeys(ids, str), **whole)
            is_text = pd.api.types.is_string_dtype  # a brand NA is one; 1 and NA are numbers
            words = [n for n in names.iloc[0] if n and (n in ids or is_text(table[n]))]
            written = pd.read_csv(path, usecols=words, dtype=str, keep_default_na=False, **whole)
            for name in words:
                text = written[name]
                table[name] = text if name in ids else text.mask(text == "")
    except (ValueError, OSError, pd.errors.ParserWarning, *_PACKED) as error:
        reason = str(error).strip()
        raise ValueError(f"{path}: expected a whole table in CSV, in UTF-8 ({reason})") from error
    if time not in table.columns or pd.api.types.is_numeric_dtype(table[time]):
        return table
    moments = table[time]
    table[time] = pd.to_datetime(moments, format=time_format, errors="coerce", utc=True)
    wrong = moments[table[time].isna()]
    number = pd.to_numeric(moments, errors="coerce").notna()
    if len(wrong) and number.mean() > 0.5:  # seconds since 1970, say
        row = int(number.argmin())
        raise ValueError(
            f"{path}, row {row} (from 0), column {time!r}: {moments[row]!r} among numbers, "
            f"expected a number, {int((~number).sum())} such in all; drop these rows"
        )
    if len(wrong):
        raise ValueError(
            f"{path}, row {wrong.index[0]} (from 0), column {time!r}: {wrong.iloc[0]!r}, expected "
            f"a date as {time_format!r} says, {len(wrong)} such in all; 'time_format' (in a "
            "command --time-format) names another format, such as '%d.%m.%Y'"
        )
    return table
