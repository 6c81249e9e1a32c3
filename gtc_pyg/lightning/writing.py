r"""Errors of writing in a run, in one line that names the file."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gtc_pyg.datasets.writing import told

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def named_errors(folder: Path) -> Iterator[None]:
    r"""An error of the loggers inside names the file, the reason and what to do.

    TensorBoard writes in a thread, whose error shows at the next call or never: one that is left
    over is a warning.

    Args:
        folder: Where a run writes; errors of other places stay as they are.

    Raises:
        OSError: ``cannot write <path>: <reason>; <what to do>``.
    """
    hook, left_over = threading.excepthook, list[OSError]()

    def keep(args: threading.ExceptHookArgs) -> None:
        module = type(args.thread).__module__
        if isinstance(args.exc_value, OSError) and module.startswith("tensorboard"):
            left_over.append(args.exc_value)
        else:
            hook(args)

    threading.excepthook = keep
    try:
        yield
    except OSError as error:
        _raise_named(error, folder)
    finally:
        threading.excepthook = hook
    for late in left_over:
        try:
            _raise_named(late, folder)
        except OSError as named:
            warnings.warn(str(named), stacklevel=3)


def _raise_named(error: OSError, folder: Path) -> None:
    given = error.filename
    place = Path(os.fsdecode(given)) if isinstance(given, str | bytes) else folder
    here = place == folder or folder in place.parents
    unnamed = given is None and error.errno not in _FULL  # it has a text of its own, or is no file
    if unnamed or not here or str(error).startswith("cannot write"):
        raise error
    if error.errno == errno.ENOENT:
        raise FileNotFoundError(
            f"cannot write {place}: its folder is gone; leave it there while a run writes into it"
        ) from error
    with told(place):
        raise error
