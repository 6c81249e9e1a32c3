r"""Errors of writing that say what to do."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_ROOM, _PLACE = "make room there and run it again", "choose another place, or allow writing there"
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST), _PLACE),
    **dict.fromkeys((errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP), _PLACE),
}


@contextmanager
def told(path: str | os.PathLike[str]) -> Iterator[None]:
    r"""An error of writing inside names what could not be written, why, and what to do.

    The type of an :class:`OSError` and its ``errno`` stay; what safetensors and ``torch.save`` make
    of one becomes one again. Errors that are none of a full disk, a missing permission or a place
    that cannot be written to are left as they are.

    Args:
        path: What is being written.

    Raises:
        OSError: ``cannot write <path>: <reason>; <what to do>``.
    """
    try:
        yield
    except Exception as error:
        number = system_error(error)
        if number not in _REMEDIES:
            raise
        reason, kind = os.strerror(number), type(error) if isinstance(error, OSError) else OSError
        out = kind(f"cannot write {os.fspath(path)}: {reason}; {_REMEDIES[number]}")
        out.errno = number
        raise out from error


def system_error(error: BaseException) -> int:
    r"""The ``errno`` of the system's error that an error is, or comes from; 0 where there is none.

    ``torch.save`` raises a :class:`RuntimeError` while the system's is handled, safetensors an
    error of its own that has the number in its text.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        error = error.__context__
    if isinstance(error, OSError):
        return error.errno or 0
    number = re.search(r"\(os error (\d+)\)", str(error))
    return int(number[1]) if number and type(error).__module__.startswith("safetensors") else 0
