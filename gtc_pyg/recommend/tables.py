r"""Tables in Arrow's format without compression: as large in memory as in the file."""

from __future__ import annotations

from pathlib import Path
from struct import error as StructError
from struct import unpack_from

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from gtc_pyg.recommend.item_table import from_arrow, to_arrow

_MAGIC, _VERSION = b"ARROW1\0\0", 4  # that of Arrow 1.0 and later
_HEADER_TYPE, _HEADER, _DICTIONARY_DATA, _COMPRESSION = 1, 2, 1, 3  # slots of the format's tables


def write_table(frame: pd.DataFrame, path: Path) -> None:
    r"""Writes a table, :func:`pandas.read_feather` reads it, too.

    Raises:
        ValueError: For a column of several types, or of a type that :func:`read_table` refuses.
    """
    table = to_arrow(frame, path.stem)
    for field in table.schema:
        if not _is_counted(field.type):
            raise ValueError(
                f"the {path.stem}' column {field.name!r} cannot be saved ({field.type!s:.80}): "
                f"give it one type of plain values, by astype(str) say"
            )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_table(path: Path, num_rows: int, most_cells: int) -> pd.DataFrame:
    r"""Reads what :func:`write_table` wrote, once it is known to be as large as it must be.

    Args:
        path: The file, which is read as a whole.
        num_rows: How many rows the table must have.
        most_cells: How many values it may hold: rows times columns, entries of lists, and
            characters of categories in every row.

    Raises:
        ValueError: For another number of rows, more values, compressed or foreign content.
    """
    content = path.read_bytes()
    if not content.startswith(_MAGIC):
        raise ValueError(f"{path.name} is no table of Arrow's")
    stream = pa.py_buffer(content).slice(len(_MAGIC))
    for message in pa.ipc.MessageReader.open_stream(stream):
        _check_uncompressed(message.metadata.to_pybytes())
    with pa.ipc.open_stream(stream) as reader:
        _check_types(reader.schema)
        table = reader.read_all()
    if table.num_rows != num_rows:
        raise ValueError(f"{path.name} has {table.num_rows} rows, but there are {num_rows}")
    if num_rows * table.num_columns > most_cells:
        raise ValueError(f"{path.name} has {table.num_columns} columns, too many for its rows")
    table.validate(full=True)
    if sum(_cells(chunk) for column in table.columns for chunk in column.chunks) > most_cells:
        raise ValueError(f"{path.name} holds more than the folder is large")
    return from_arrow(table)


def _check_types(schema: pa.Schema) -> None:
    for field in schema:
        if not _is_counted(field.type):
            raise ValueError(f"{field.name!r:.80} has the type {field.type!s:.80}")


def _is_counted(kind: pa.DataType) -> bool:
    """Whether it is a type whose values :func:`_cells` counts."""
    if types.is_dictionary(kind):
        value = kind.value_type
        return _has_length(value) or (_is_counted(value) and not _varies(value))
    if types.is_list(kind) or types.is_large_list(kind):
        return _is_counted(kind.value_type)
    if types.is_struct(kind):
        return kind.num_fields > 0 and all(_is_counted(field.type) for field in kind)
    if isinstance(kind, pa.BaseExtensionType):  # those of pandas: periods, intervals
        return _is_counted(kind.storage_type)
    plain = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_decimal,
        types.is_temporal,
    )
    return _has_length(kind) or any(is_kind(kind) for is_kind in plain)


def _cells(array: pa.Array) -> int:
    """How many values there are once categories are written out."""
    if types.is_dictionary(array.type) and _has_length(array.type.value_type):
        lengths = pc.binary_length(array.dictionary)
        return len(array) + (pc.sum(lengths.take(array.indices)).as_py() or 0)
    if types.is_list(array.type) or types.is_large_list(array.type):
        return len(array) + _cells(array.values)
    if types.is_struct(array.type):
        return len(array) + sum(_cells(array.field(i)) for i in range(array.type.num_fields))
    if isinstance(array.type, pa.BaseExtensionType):
        return _cells(array.storage)
    return len(array)


def _has_length(kind: pa.DataType) -> bool:
    of_kind = types.is_string, types.is_large_string, types.is_binary, types.is_large_binary
    return any(is_kind(kind) for is_kind in of_kind)


def _varies(kind: pa.DataType) -> bool:
    """Whether some values take more than others, so that as a category they may cost anything."""
    if isinstance(kind, pa.BaseExtensionType):
        return _varies(kind.storage_type)
    if types.is_struct(kind):
        return any(_varies(field.type) for field in kind)
    lists = types.is_list(kind) or types.is_large_list(kind)
    return lists or types.is_dictionary(kind) or _has_length(kind)


def _check_uncompressed(message: bytes) -> None:
    """Arrow would make of a compressed message whatever the message says."""
    try:
        root = _target(message, 0)
        version = _field(message, root, 0)
        if version == 0 or unpack_from("<h", message, version)[0] != _VERSION:
            raise ValueError("a table of another version of Arrow's format")
        kind, header = _field(message, root, _HEADER_TYPE), _field(message, root, _HEADER)
        batch = _target(message, header)
        if message[kind] == 2:
            batch = _target(message, _field(message, batch, _DICTIONARY_DATA))
        if message[kind] != 1 and _field(message, batch, _COMPRESSION) != 0:
            raise ValueError("a compressed table")
    except (StructError, IndexError) as error:
        raise ValueError(f"a table with a wrong header ({error})") from error


def _field(message: bytes, table: int, slot: int) -> int:
    """Where a field of a table of FlatBuffers lies; 0 where the table has none."""
    names = table - unpack_from("<i", message, table)[0]
    if names < 0:
        raise IndexError("before its beginning")
    size = unpack_from("<H", message, names)[0]
    if 6 + 2 * slot > size:
        return 0
    offset: int = unpack_from("<H", message, names + 4 + 2 * slot)[0]
    return table + offset if offset else 0


def _target(message: bytes, place: int) -> int:
    target: int = place + unpack_from("<I", message, place)[0]
    return target
