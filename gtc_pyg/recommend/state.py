r"""What changes together is exchanged in one assignment, and read as it was at one moment."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="Stateful")

_changing = threading.RLock()
_reading = threading.local()


class Stateful:
    r"""Keeps its :class:`Field` attributes in one mapping, which is exchanged and never written."""

    _state: dict[str, Any] = {}  # noqa: RUF012

    def _change(self, **values: Any) -> None:
        """Gives attributes new values, all at one moment."""
        with _changing:
            self._state = {**self._state, **values}


class Field(Generic[T]):
    r"""An attribute of a :class:`Stateful`, inside a :func:`reader` as it was at its beginning."""

    def __set_name__(self, owner: type[Stateful], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Stateful]) -> Field[T]: ...

    @overload
    def __get__(self, instance: Stateful, owner: type[Stateful]) -> T: ...

    def __get__(self, instance: Stateful | None, owner: type[Stateful]) -> Field[T] | T:
        if instance is None:
            return self
        state = _states().get(id(instance), instance._state)
        if self.name not in state:
            raise AttributeError(f"{owner.__name__!r} has no {self.name!r} yet")
        value: T = state[self.name]
        return value

    def __set__(self, instance: Stateful, value: T) -> None:
        instance._change(**{self.name: value})


def reader(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    r"""A method that sees one state from beginning to end, whatever other threads change."""

    @functools.wraps(method)
    def read(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        states = _states()
        if id(self) in states:
            return method(self, *args, **kwargs)
        states[id(self)] = self._state
        try:
            return method(self, *args, **kwargs)
        finally:
            del states[id(self)]

    return read


def changer(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    r"""A method that changes the state; one after another, so that no change is lost."""

    @functools.wraps(method)
    def change(self: S, *args: P.args, **kwargs: P.kwargs) -> T:
        with _changing:
            return method(self, *args, **kwargs)

    return change


def _states() -> dict[int, dict[str, Any]]:
    """What the readers of this thread began with, by the object's identity."""
    states: dict[int, dict[str, Any]] = _reading.__dict__.setdefault("states", {})
    return states
