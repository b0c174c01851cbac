"""Reads Thrift's compact protocol, in which parquet writes its footer and the headers of its pages.

pyarrow does not expose page headers, and crashes the process that asks for a chunk's offset if the
chunk's statistics are damaged.

Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

import mmap
from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, _MAP, STRUCT = range(1, 13)
LONG_LIST = 15  # the length follows
MAX_DEPTH = 12  # of nested structs and lists

Fields = dict[int, Any]  # field number -> integer, list, struct; None for the rest


def read_struct(data: mmap.mmap, at: int, depth: int = 0) -> tuple[Fields, int]:
    """Read the struct at an offset; return its fields, and the offset after it.

    Raises:
        IndexError: the data is malformed or ends too early.
    """
    fields: Fields = {}
    number = 0
    while head := data[at]:
        at, kind = at + 1, head & 15
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_integer(data, at)
        if kind in (TRUE, FALSE):  # the kind itself is the value
            fields[number] = None
        else:
            fields[number], at = _read_value(data, at, kind, depth + 1)
    return fields, at + 1


def _read_value(data: mmap.mmap, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        raise IndexError(f"more than {MAX_DEPTH} things in each other")
    if kind in (I16, I32, I64):
        return _read_integer(data, at)
    if kind == STRUCT:
        return read_struct(data, at, depth)
    if kind in (LIST, SET):
        return _read_list(data, at, depth)
    if kind == BINARY:
        n_bytes, at = _read_varint(data, at)
        return None, at + n_bytes
    if kind in (TRUE, FALSE, BYTE):
        return None, at + 1
    if kind == DOUBLE:
        return None, at + 8
    raise IndexError(f"{kind} is no kind of value")


def _read_list(data: mmap.mmap, at: int, depth: int) -> tuple[list[Any], int]:
    n_values, kind, at = data[at] >> 4, data[at] & 15, at + 1
    if n_values == LONG_LIST:
        n_values, at = _read_varint(data, at)
    values: list[Any] = []
    while len(values) < n_values:
        value, at = _read_value(data, at, kind, depth + 1)
        values.append(value)
    return values, at


def _read_integer(data: mmap.mmap, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return (value >> 1) ^ -(value & 1), at


def _read_varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise IndexError("a number without an end")
