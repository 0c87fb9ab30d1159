"""What the pages of a Parquet column chunk say of themselves: read from their headers, nothing is decompressed.

A page header is a struct in Thrift's compact protocol (parquet-format's parquet.thrift, PageHeader), right before the
page's bytes. The footer has sums only, and a reader does not hold the pages to them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

DICTIONARY_PAGE = 2
DICTIONARY_ENCODINGS = (2, 8)
"""PLAIN_DICTIONARY, RLE_DICTIONARY: a value is the place of an entry in the dictionary."""
DELTA_BYTE_ARRAY = 7
"""A value begins with so many bytes of the one before it."""

_MOST_NESTED = 8
_LONGEST_BINARY = 1 << 24  # as Arrow has it, of a header


class Page(NamedTuple):
    """A data page, or the dictionary."""

    is_dictionary: bool
    encoding: int
    values: int
    """Entries of the dictionary; of a data page, nulls and empty lists count."""
    size: int
    """In bytes, decompressed."""


def read_pages(stream: BinaryIO, chunk: Any) -> Iterator[Page]:
    """The pages of a column chunk, as far as a reader goes: until they have the values that the footer says.

    Args:
        chunk: pyarrow's ColumnChunkMetaData.

    Raises:
        OSError: a header is malformed.
    """
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end, values = start + chunk.total_compressed_size, 0
    while start < end and values < chunk.num_values:
        stream.seek(start)
        fields = _struct(stream, 0)
        header: dict[int, Any] = next((fields[number] for number in (5, 7, 8) if number in fields), {})
        kind, size, compressed = (_natural(fields.get(number)) for number in (1, 2, 3))
        found = _natural(header.get(1, 0))
        if header:  # an index page has none
            encoding = _natural(header.get(4 if 8 in fields else 2))
            yield Page(kind == DICTIONARY_PAGE, encoding, found, size)
        values += 0 if kind == DICTIONARY_PAGE else found
        start = stream.tell() + compressed


def _natural(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise OSError("a page header is malformed")
    return value


def _struct(stream: BinaryIO, depth: int) -> dict[int, Any]:
    """The fields by their numbers."""
    fields: dict[int, Any] = {}
    number = 0
    while kind := _byte(stream):
        kind, step = kind & 15, kind >> 4
        number = number + step if step else _integer(stream)
        fields[number] = kind == 1 if kind in (1, 2) else _value(stream, kind, depth)
    return fields


def _value(stream: BinaryIO, kind: int, depth: int) -> Any:
    if depth > _MOST_NESTED:
        raise OSError("a page header is nested too deep")
    match kind:
        case 1 | 2 | 3:  # in a list a bool is a byte
            return _byte(stream)
        case 4 | 5 | 6:
            return _integer(stream)
        case 7:
            return stream.read(8)
        case 8:
            size = _varint(stream)
            if size > _LONGEST_BINARY:
                raise OSError(f"a page header holds {size:,} bytes in one field")
            return stream.read(size)
        case 9 | 10:
            head = _byte(stream)
            count = head >> 4 if head >> 4 < 15 else _varint(stream)
            if count > _LONGEST_BINARY:
                raise OSError(f"a page header holds a list of {count:,}")
            return [_value(stream, head & 15, depth + 1) for _ in range(count)]
        case 12:
            return _struct(stream, depth + 1)
    raise OSError(f"a page header has a field of unknown type {kind}")


def _byte(stream: BinaryIO) -> int:
    byte = stream.read(1)
    if not byte:
        raise OSError("the file ends in a page header")
    return byte[0]


def _varint(stream: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = _byte(stream)
        value |= (byte & 127) << shift
        if byte < 128:
            return value
    raise OSError("a page header has a number of more than 64 bits")


def _integer(stream: BinaryIO) -> int:
    """Zigzag."""
    value = _varint(stream)
    return value >> 1 ^ -(value & 1)
