"""An experiment: cells of a grid, each measured once, its rows in one file."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gtc_pyg.utils.provenance import commit, versions

from .rows import RESULTS, ROOT, append_rows, claimed, read_rows
from .settings import alike

Row = Mapping[str, Any]
SOURCE = ("commit", "versions")
warnings.filterwarnings("ignore", message="Using '.*' without a 'pyg-lib'")


def source() -> dict[str, str]:
    """What every row records of the code and the machine that made it."""
    return {"commit": commit(), "versions": versions()}


def shown(row: Row) -> str:
    """A row in a line: what is short and nothing of the test set, which no choice may see."""
    cells = {k: str(v) for k, v in row.items() if k not in SOURCE and not k.startswith("test_")}
    return ", ".join(f"{k} {v}" for k, v in cells.items() if v and len(v) <= 40)


@dataclass(frozen=True)
class Experiment:
    """Where the rows of a question are, what they hold and what they are named by.

    Args:
        name: Of the file ``results/<name>.csv``.
        columns: All columns, separated by spaces; a star marks those that name a cell of the grid.
            ``commit`` and ``versions`` come last where they are not named.
    """

    name: str
    columns: str

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.name}.csv"

    @property
    def key(self) -> list[str]:
        return [name[:-1] for name in self.columns.split() if name.endswith("*")]

    @property
    def header(self) -> list[str]:
        found = self.columns.replace("*", "").split()
        return [*found, *(name for name in SOURCE if name not in found)]

    def rows(self, path: Path | None = None) -> list[dict[str, str]]:
        """The rows of a file, the committed ones by default."""
        return read_rows(path or self.path)

    def append(self, path: Path, rows: Sequence[Row]) -> None:
        """Appends rows under a lock."""
        append_rows(path, self.header, rows)

    def run(
        self,
        grid: Iterable[Row],
        measure: Callable[[dict[str, Any]], Row | list[Row]],
        out: Path | None = None,
        strict: bool = True,
    ) -> None:
        """Measures the cells that have no row yet, in order, and appends their rows.

        A cell that another process works on is left to it, so that commands can share a grid. What
        a cell says besides its key, its settings for example, is what its row must say.

        Args:
            grid: Cells, each with the columns of the key.
            measure: A cell to its row or rows, which may overwrite what the cell says.
            out: The file, that of the committed rows by default.
            strict: Whether a row that says otherwise is an error or a line on standard error.

        Raises:
            ValueError: Where the file has a row of a cell that says otherwise.
        """
        out = out or self.path
        for cell in grid:
            key = {name: cell[name] for name in self.key}
            with claimed(out, *key.values()) as mine:
                done = [r for r in read_rows(out) if all(r[k] == str(v) for k, v in key.items())]
                if done and not all(_same(cell, k, done[0].get(k)) for k in cell):
                    text = f"{out} has a row of other settings"
                    if strict:
                        raise ValueError(f"{text}: remove the rows like {key} and repeat")
                    print(f"{text}, which is kept: {key}", file=sys.stderr)
                if done or not mine:
                    continue
                made, start = source(), time.perf_counter()
                found = measure(dict(cell))
                found = found if isinstance(found, list) else [found]
                rows = [{**cell, **made, **row} for row in found]
                if "seconds" in self.header and "seconds" not in rows[0]:
                    rows[0]["seconds"] = f"{time.perf_counter() - start:.0f}"
                self.append(out, rows)
                for row in rows:
                    print(shown(row), file=sys.stderr, flush=True)


def _same(cell: Row, name: str, said: str | None) -> bool:
    """Whether a row says of a column what the cell does; settings may have their earlier form."""
    return said == str(cell[name]) or (
        name == "settings"
        and said is not None
        and alike(cell.get("model", "gtc"), said, cell[name])
    )


class Options(argparse.ArgumentParser):
    """Options of a script, whose section in README.md is the help.

    Args:
        script: Its file.
        out: The file that ``--out`` is by default; no such option without it.
        datasets: What ``--dataset`` may be, the first by default; ``--root`` comes with it.
        seeds: Default of ``--seed``.
        threads: Default of ``--threads``; ``None`` leaves them to PyTorch.
    """

    def __init__(
        self,
        script: str,
        out: Path | None = None,
        datasets: Iterable[str] = (),
        seeds: Iterable[int] = (),
        threads: int | None = 1,
    ) -> None:
        page = (ROOT / "benchmarks" / "README.md").read_text()
        text = page.partition(f"\n### `{Path(script).name}`\n")[2].partition("\n##")[0].strip()
        kind = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=Path(script).name, description=text, formatter_class=kind)
        names, seeds = list(datasets), list(seeds)
        if names:
            self.add("--dataset", names[0], choices=names)
            self.add("--root", help="folder with raw/ (default: data/<dataset>)")
        if seeds:
            self.add("--seed", seeds, help="seeds")
        self.add("--threads", threads, type=int, help="CPU threads")
        if out:
            self.add("--out", out, help="CSV file of the rows")

    def add(self, name: str, default: Any = None, **more: Any) -> None:
        """An option of its default's type: a flag for ``False``, several values for a list."""
        if default is False:
            self.add_argument(name, action="store_true", **more)
            return
        first = default[0] if isinstance(default, list) else default
        more = {"nargs": "+"} | more if isinstance(default, list) else more
        more["help"] = f"{more.get('help', '')} (default: %(default)s)".strip()
        kind = {} if first is None or "type" in more else {"type": type(first)}
        if isinstance(first, Path):
            kind = {"type": Path}
        self.add_argument(name, default=default, **kind, **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found = super().parse_args(args, namespace)
        if getattr(found, "dataset", None) and not found.root:
            found.root = f"data/{found.dataset}"
        return found

    def start(
        self,
        argv: Sequence[str] | None,
        run: Callable[[argparse.Namespace], object],
        report: Callable[[argparse.Namespace], object] | None = None,
    ) -> None:
        """Runs, or reports where ``--report`` says so."""
        if report:
            self.add("--report", False, help="of the rows that are there, measure nothing")
        args = self.parse_args(argv)
        if args.threads:
            torch.set_num_threads(args.threads)
        if report and args.report:
            report(args)
        else:
            run(args)
