r"""What is refused before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

_P = ParamSpec("_P")
_R = TypeVar("_R")


def plain_numbers(value: Any) -> Any:
    r"""Numbers of NumPy and PyTorch as Python's; anything else as it is.

    Args:
        value: A setting, or a list, tuple or dict of settings, which is copied.

    Example:
        >>> plain_numbers({"k": np.int64(5), "lr": np.array(0.5), "name": "a"})
        {'k': 5, 'lr': 0.5, 'name': 'a'}
    """
    if isinstance(value, np.number | np.bool_):
        return value.item()
    if isinstance(value, np.ndarray | Tensor):
        return value.item() if value.ndim == 0 else value
    if type(value) is dict:
        return {key: plain_numbers(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain_numbers, value))
    return value


def takes_numbers(function: Callable[_P, _R]) -> Callable[_P, _R]:
    r"""Lets a function take numbers of NumPy and PyTorch as settings, by :func:`plain_numbers`.

    Args:
        function: One without arguments that are scalar tensors with a gradient.
    """

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        return function(*plain_numbers(args), **plain_numbers(kwargs))

    return call


def whole_number(least: int, **values: Any) -> int:
    r"""An argument that must be a whole number, ``whole_number(1, k=k)``, as Python's.

    Args:
        least: The smallest value that is allowed.
        values: The one argument by name.

    Raises:
        ValueError: For anything else, a whole number in a float as well.
    """
    ((name, given),) = values.items()
    value = plain_numbers(given)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"'{name}' must be a whole number, at least {least} (got {given!r})")
    return value


def check_ids(ids: Tensor, num: int | None, what: str) -> Tensor:
    r"""Refuses ids outside ``0`` to ``num - 1``, which sparse products read from foreign memory.

    Waits for the device that holds the ids.

    Args:
        ids: Of any integer type and any shape.
        num: Number of nodes; any where ``None``.
        what: Opening of the message, ``"'adj' holds source"`` say.

    Returns:
        The ids as ``int64``, in which products of them do not overflow.

    Raises:
        ValueError: For ids that are no whole numbers; with the first of the smallest and the
            largest id that is out of range.
    """
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{what} {ids.dtype} values, expected whole numbers")
    whole = ids.long()
    if whole.numel() > 0:
        low, high = (int(end) for end in whole.aminmax())
        if low < 0 or (num is not None and high >= num):
            wrong = high if low >= 0 else low + 2**64 if ids.dtype == torch.uint64 else low
            expected = "0 or more" if num is None else f"0 to {num - 1}"
            raise ValueError(f"{what} {wrong}, expected {expected}")
    return whole


def check_least(least: int, **values: int) -> None:
    r"""Refuses arguments below the least that they may be, ``check_least(1, num_steps=num_steps)``.

    Args:
        least: The smallest value that is allowed.
        values: Arguments by name.

    Raises:
        ValueError: With the first argument that is smaller, or no whole number.
    """
    for name, value in values.items():
        number = plain_numbers(value)
        if not isinstance(number, int | float):
            raise ValueError(f"'{name}' must be a number (got {value!r})")
        if not number >= least:  # NaN is refused
            raise ValueError(f"'{name}' must be at least {least} (got {value})")
        if isinstance(number, float):
            raise ValueError(f"'{name}' must be a whole number (got {value})")


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
