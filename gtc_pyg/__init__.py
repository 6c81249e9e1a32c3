r"""Multi-modal recommendation by generative total correlation learning, on PyTorch Geometric.

Importing the package loads this file alone. A part (``gtc_pyg.nn``, ``gtc_pyg.models``, ...) loads
when it is first used, so one whose optional packages are missing does not stand in the way.
"""

from importlib import import_module
from types import ModuleType

from gtc_pyg._version import __version__

# part -> the extra that brings its optional packages
_PARTS = {
    "datasets": "data",
    "distributed": None,
    "evaluation": None,
    "experiment": "train",
    "explain": None,
    "functional": None,
    "graph": None,
    "imputation": None,
    "inductive": None,
    "lightning": "train",
    "loader": None,
    "models": None,
    "nn": None,
    "recommend": "recommend",
    "row_wise_embedding": None,
    "transforms": None,
}

__all__ = ["__version__", *_PARTS]


def __getattr__(name: str) -> ModuleType:
    if name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        extra, missing = _PARTS[name], error.name
        if extra is None or missing is None or missing.startswith(__name__):
            raise
        message = f'gtc_pyg.{name} needs {missing}: pip install "gtc-pyg[{extra}]"'
        raise ModuleNotFoundError(message, name=missing) from error


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS])
