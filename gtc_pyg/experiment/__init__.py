r"""One command from a dataset to a table and result rows: what every example script shares."""

from gtc_pyg.experiment.command import format_table, parse_args, run
from gtc_pyg.experiment.config import read_settings
from gtc_pyg.experiment.errors import one_line_errors
from gtc_pyg.experiment.rows import HEADER, append_rows
from gtc_pyg.experiment.rows import _features as _features
from gtc_pyg.experiment.settings import (
    DEFAULTS,
    MODELS,
    NAMES,
    Settings,
    build_model,
    default_graph,
    train,
)

__all__ = [
    "Settings",
    "DEFAULTS",
    "default_graph",
    "MODELS",
    "NAMES",
    "read_settings",
    "build_model",
    "train",
    "parse_args",
    "run",
    "one_line_errors",
    "format_table",
    "HEADER",
    "append_rows",
]
