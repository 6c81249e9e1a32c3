"""Tables and pictures of pages, between marks that tests hold equal to the committed rows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .rows import ROOT, write_text

DOCS = ROOT / "docs"


def between(page: str, name: str, text: str, space: str = "\n\n") -> str:
    """The page with the text between ``<!-- name -->`` and ``<!-- end of name -->``."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if start not in page or end not in page:
        raise ValueError(f"the page lacks {start!r} or {end!r}")
    before, _, rest = page.partition(start)
    return f"{before}{start}{space}{text}{space}{end}{rest.partition(end)[2]}"


def filled(page: str, texts: Mapping[str, str], space: str = "\n\n") -> str:
    """The page with several texts, by the name of their marks."""
    for name, text in texts.items():
        page = between(page, name, text, space)
    return page


def fill(page: Path, texts: Mapping[str, str], space: str = "\n\n") -> None:
    """Puts texts between their marks of a page."""
    write_text(page, filled(page.read_text(), texts, space))


def markdown(head: Sequence[str], body: Iterable[Sequence[object]], rule: str = " --- |") -> str:
    """A table of a page: its head, its rows, and the rule of each column between."""
    empty = "  |" if rule[0] == " " else " |"
    top = ["|" + "".join(f" {cell} |" if cell else empty for cell in head), "|" + rule * len(head)]
    return "\n".join([*top, *(f"| {' | '.join(map(str, cells))} |" for cells in body)])


@contextmanager
def figure(
    path: Path, *shape: int, metadata: Any = None, **options: Any
) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes, saved to a file at the end."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    made, axes = plt.subplots(*shape, **{"layout": "constrained", **options})
    try:
        yield made, axes
        path.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(path, dpi=110, metadata=metadata)
    finally:
        plt.close(made)
