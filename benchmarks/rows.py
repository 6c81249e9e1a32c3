"""Result rows in CSV files, tables in Markdown, and text between the marks of a page.

What is written lies beside, as ``<name>.part``, until it is whole, and is renamed then.
"""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file; none where there is no file yet."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append_rows(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Appends rows, all or none. The last one to write wins: lock where several processes do.

    Raises:
        ValueError: Where the file has another header, or a row has other columns.
    """
    if path.exists():
        with path.open(newline="") as file:
            found = next(csv.reader(file), header)
        if list(found) != list(header):
            raise ValueError(f"{path} must have the header {list(header)} (got {found})")
    write_rows(path, header, [*read_rows(path), *rows])


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, object]]) -> None:
    """Writes a CSV file anew; columns that a row lacks stay empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Puts a text in the place of the file's, whose folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with beside.open("w", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def between(page: str, name: str, text: str) -> str:
    """The page with the text between ``<!-- name -->`` and ``<!-- end of name -->``."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if start not in page or end not in page:
        raise ValueError(f"the page lacks {start!r} or {end!r}")
    before, _, rest = page.partition(start)
    return f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}"


def markdown(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table of a page: its head and its rows, cell by cell."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
