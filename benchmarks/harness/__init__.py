"""What the benchmarks share: rows that resume, options, statistics, pages, data, processes."""

# ruff: noqa: F401, I001
from .rows import RESULTS, ROOT, append_rows, claimed, lock_of, read_rows
from .rows import replaced, write_rows, write_text
from .experiment import Experiment, Options, shown, source
from .pages import DOCS, between, figure, fill, filled, markdown
from .stats import by_seed, column, compare, holm, mean, paired, pick, spread
