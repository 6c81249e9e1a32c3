r"""What is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def check_ids(ids: Tensor, num: int, what: str) -> None:
    r"""Refuses ids outside ``0`` to ``num - 1``, which sparse products read from foreign memory.

    Waits for the device that holds the ids.

    Args:
        ids: Of whole numbers, any shape.
        num: Number of nodes.
        what: Opening of the message, ``"'adj' holds source"`` say.

    Raises:
        ValueError: With the first of the smallest and the largest id that is out of range.
    """
    if ids.numel() > 0:
        low, high = (int(end) for end in ids.aminmax())
        if low < 0 or high >= num:
            raise ValueError(f"{what} {low if low < 0 else high}, expected 0 to {num - 1}")


def check_least(least: int, **values: int) -> None:
    r"""Refuses arguments below the least that they may be, ``check_least(1, num_steps=num_steps)``.

    Args:
        least: The smallest value that is allowed.
        values: Arguments by name.

    Raises:
        ValueError: With the first argument that is smaller, or no number.
    """
    for name, value in values.items():
        if not isinstance(value, int | float | np.number):
            raise ValueError(f"'{name}' must be a number (got {value!r})")
        if value < least:
            raise ValueError(f"'{name}' must be at least {least} (got {value})")


def check_one_of(allowed: Sequence[str], **values: str) -> None:
    r"""Refuses values that are none of those allowed, naming the argument.

    Args:
        allowed: The values.
        **values: Arguments by name.
    """
    for name, value in values.items():
        if value not in allowed:
            first, last = ", ".join(map(repr, allowed[:-1])), repr(allowed[-1])
            raise ValueError(f"'{name}' must be {first} or {last} (got {value!r})")
