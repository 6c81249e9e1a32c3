r"""Pickled SciPy matrices, read without :mod:`pickle`: nothing of them can run.

:func:`pickletools.genops` cuts the stream into its operations, and a small machine carries out the
three dozen that a sparse matrix is made of. It calls no object of the stream and looks nothing up:
the few names it knows stand for what it makes itself. Memory is bounded by the stream's length.
"""

from __future__ import annotations

import pickletools
import re
from typing import Any

import numpy as np

MAX_OPERATIONS = 10_000  # a matrix takes about a hundred; nesting cannot go deeper than this
_KINDS = ("matrix", "array")
_LAYOUTS = {f"{layout}_{kind}": layout for layout in ("coo", "csr", "csc") for kind in _KINDS}
_NUMPY = re.compile(
    r"numpy\.(?:ndarray|dtype|_?core\.(?:multiarray\._reconstruct|numeric\._frombuffer))"
)
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS, _GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}


class SparseMatrix:
    r"""The state of a pickled SciPy matrix.

    Attributes:
        layout: ``'coo'``, ``'csr'`` or ``'csc'``.
        state: Names to arrays, numbers and tuples; empty where the pickle gives none.
    """

    def __init__(self, layout: str) -> None:
        self.layout = layout
        self.state: dict[str, Any] = {}


class _Name:
    r"""A global that the stream names; it stands for nothing that could be called."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Dtype:
    def __init__(self, code: Any, *_: Any) -> None:
        if not (isinstance(code, str) and re.fullmatch("b1|[iu][1248]|f[248]", code)):
            raise ValueError(f"an array of {str(code)[:40]!r}, expected real numbers")
        self.code = code

    def build(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise ValueError("a byte order that is none")
        self.code = state[1] + self.code


class _Array:
    content = np.empty(0)

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        self.set(content, dtype, shape, "F" if fortran else "C")

    def set(self, content: Any, dtype: _Dtype, shape: tuple[int, ...], order: Any) -> _Array:
        array = np.frombuffer(content, dtype.code) if content else np.empty(0, dtype.code)
        self.content = array.reshape(shape, order=order)
        return self


def load_sparse(content: bytes) -> SparseMatrix:
    r"""The matrix in a pickle of protocol 2 to 5.

    Raises:
        ValueError: If it names anything but SciPy's matrices and NumPy's arrays (the message says
            what), has an operation that those do not need, is cut off, or holds something else.
    """
    try:
        found = _run(content)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError) as error:
        raise ValueError(f"not a sound pickle ({type(error).__name__})") from error
    if not isinstance(found, SparseMatrix):
        raise ValueError(f"holds {type(found).__name__.strip('_')}, expected a SciPy matrix")
    return found


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # what lay on the stack at each open mark
    memo: dict[int, Any] = {}
    value: Any
    written = 0  # bytes that texts became; each text once, they are fewer than the stream's
    for count, (opcode, value, _) in enumerate(pickletools.genops(content)):
        name = opcode.name
        if count > MAX_OPERATIONS:
            raise ValueError(f"more than {MAX_OPERATIONS} operations, expected one sparse matrix")
        if name in _VALUES:
            stack.append(value)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PUTS or name == "MEMOIZE":
            memo[len(memo) if name == "MEMOIZE" else value] = stack[-1]
        elif name in _GETS:
            stack.append(memo[value])
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name == "TUPLE":
            stack, items = below.pop(), stack
            stack.append(tuple(items))
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(_top(stack, _TUPLES[name]))]
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "SETITEM":
            _set(stack[-3], _top(stack, 2))
            del stack[-2:]
        elif name == "SETITEMS":
            stack, items = below.pop(), stack
            _set(stack[-1], items)
        elif name == "GLOBAL":
            stack.append(_global(*value.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack[-2:] = [_global(*_top(stack, 2))]
        elif name in ("REDUCE", "NEWOBJ"):
            stack[-2:] = [_make(*_top(stack, 2))]
            written += len(stack[-1]) if isinstance(stack[-1], bytes) else 0
            if written > len(content):
                raise ValueError("repeats its content, which no sparse matrix needs")
        elif name == "BUILD":
            _build(stack[-2], stack.pop())
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise ValueError(f"has the operation {name}, which no sparse matrix needs")
    return stack.pop()


def _top(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise IndexError
    return stack[-count:]


def _set(target: Any, items: list[Any]) -> None:
    keys = items[::2]
    if type(target) is not dict or not all(type(key) is str for key in keys):
        raise TypeError
    target.update(zip(keys, items[1::2], strict=False))


def _global(module: str, name: str) -> _Name:
    full = f"{module!s:.200}.{name!s:.200}"
    if re.fullmatch(r"scipy\.sparse[\w.]*", module) and name in _LAYOUTS:
        return _Name(_LAYOUTS[name])
    # How protocol 2 writes bytes: as the text of their numbers, and where there are none.
    if full in ("_codecs.encode", "__builtin__.bytes"):
        return _Name(name)
    if not _NUMPY.fullmatch(full):
        raise ValueError(
            f"names the forbidden global {full!r}; expected SciPy and NumPy array types alone"
        )
    return _Name(name)


def _make(what: Any, arguments: Any) -> Any:
    name = what.name if isinstance(what, _Name) else None
    if name in _LAYOUTS.values():
        return SparseMatrix(str(name))
    if name == "dtype":
        return _Dtype(*arguments)
    if name == "_reconstruct":
        return _Array()
    if name == "encode":
        text, code = arguments
        if code != "latin1":
            raise ValueError("bytes as a text that is not latin1, expected those of NumPy's arrays")
        return text.encode("latin1")
    if name == "bytes" and arguments == ():
        return b""
    if name == "_frombuffer":
        return _Array().set(*arguments)
    raise ValueError("calls what is no array type; expected SciPy and NumPy array types alone")


def _build(target: Any, state: Any) -> None:
    if isinstance(target, SparseMatrix) and type(state) is dict:
        target.state = {
            key: value.content if isinstance(value, _Array) else value
            for key, value in state.items()
        } | {"coords": tuple(x.content for x in state.get("coords", ()))}
    elif isinstance(target, _Array | _Dtype):
        target.build(state)
    else:
        raise ValueError("gives a state to what is no array; expected arrays and matrices alone")
