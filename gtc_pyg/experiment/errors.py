r"""What a command says where a user's files or options are wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TOLD = (ValueError, TypeError, ImportError, RuntimeError, ArithmeticError)


@contextmanager
def one_line_errors() -> Iterator[None]:
    r"""Ends a command with its error's message alone, and the exit status 2 of wrong options.

    That is for errors that speak to the user: those that this package or the script raised itself
    as :class:`ValueError`, :class:`TypeError`, :class:`ImportError`, :class:`RuntimeError` (a
    second process of a run) or :class:`ArithmeticError` (a loss that is not finite), and those of
    the system (:class:`OSError`: a missing file, a full disk). Any other is a fault of a program
    and keeps its traceback. So do all of them under ``python -X dev``.
    """
    try:
        yield
    except (*_TOLD, OSError) as error:
        if sys.flags.dev_mode or not (isinstance(error, OSError) or _is_ours(error)):
            raise
        print(f"{os.path.basename(sys.argv[0])}: error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def _is_ours(error: Exception) -> bool:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return module == "__main__" or module.partition(".")[0] == "gtc_pyg"
