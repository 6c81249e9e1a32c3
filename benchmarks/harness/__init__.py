"""What the benchmarks share: rows that resume, options, statistics, pages, data, processes."""

from .experiment import Experiment, Options, shown, source
from .pages import DOCS, between, figure, fill, filled, markdown
from .rows import (
    RESULTS,
    ROOT,
    append_rows,
    claimed,
    lock_of,
    read_rows,
    replaced,
    write_rows,
    write_text,
)
from .stats import by_seed, column, compare, holm, mean, paired, pick, spread

__all__ = [
    "ROOT",
    "RESULTS",
    "DOCS",
    "read_rows",
    "append_rows",
    "write_rows",
    "write_text",
    "replaced",
    "lock_of",
    "claimed",
    "Experiment",
    "Options",
    "source",
    "shown",
    "between",
    "filled",
    "fill",
    "markdown",
    "figure",
    "pick",
    "column",
    "mean",
    "by_seed",
    "spread",
    "paired",
    "compare",
    "holm",
]
