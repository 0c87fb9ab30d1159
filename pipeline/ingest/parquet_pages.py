"""What the pages of a Parquet column chunk say of themselves: read from their headers, nothing is decompressed.

A page header is a struct in Thrift's compact protocol (parquet-format's parquet.thrift, PageHeader), right before the
page's bytes. The footer has sums only, and a reader does not hold the pages to them. Headers are read as Arrow reads
them, or refused: what it passes over must not be told apart from what it goes by.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

DICTIONARY_PAGE = 2
DICTIONARY_ENCODINGS = (2, 8)
"""PLAIN_DICTIONARY, RLE_DICTIONARY: a value is the place of an entry in the dictionary."""
DELTA_BYTE_ARRAY = 7
"""A value begins with so many bytes of the one before it."""
HEADER_BUFFER = 1 << 13
"""Bytes to ask for at a time of a stream of which the headers alone are read."""

_V2 = 3
_DESCRIBED_IN = {0: 5, DICTIONARY_PAGE: 7, _V2: 8}
"""By the type of the page, the field that has its number of values and its encoding. Other types are passed over."""
_FIELDS_READ = (frozenset({1, 2, 3, 5, 7, 8}), frozenset({1, 2, 4}))
"""Of a header, and of the structs in it."""
_INT, _STRUCT = 5, 12
_MOST_NESTED = 8
_LONGEST_HEADER = 1 << 24  # as Arrow has it
_PADDING = 100  # Arrow reads on by so much, since old writers gave their chunks too short


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
        OSError: a header is malformed, or longer than 16 MiB.
    """
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end, values = start + chunk.total_compressed_size + _PADDING, 0
    while start < end and values < chunk.num_values:
        stream.seek(start)
        header = _Header(stream)
        fields = header.struct()
        kind, size, compressed = (_natural(fields.get(number)) for number in (1, 2, 3))
        if kind in _DESCRIBED_IN:
            described = fields.get(_DESCRIBED_IN[kind], {})
            found, encoding = (_natural(described.get(number)) for number in (1, 4 if kind == _V2 else 2))
            yield Page(kind == DICTIONARY_PAGE, encoding, found, max(size, compressed))
            values += 0 if kind == DICTIONARY_PAGE else found
        start += header.size + compressed


def _natural(value: int | None) -> int:
    if value is None or not 0 <= value < 1 << 31:
        raise OSError("a page header is malformed")
    return value


class _Header:
    """Read from where the stream is; `size` bytes of it so far."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """Its integers of 32 bits and its structs, by their numbers, of those that are read here."""
        fields: dict[int, Any] = {}
        read = _FIELDS_READ[depth] if depth < len(_FIELDS_READ) else ()
        number = 0
        while kind := self._byte():
            kind, step = kind & 15, kind >> 4
            number = number + step if step else self._integer()
            if not 0 < number < 1 << 15:
                raise OSError(f"a page header has a field of number {number}")
            value = None if kind in (1, 2) else self._value(kind, depth)  # a bool is in its kind
            if number in read and kind == (_STRUCT if depth == 0 and number > 3 else _INT):
                fields[number] = value
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MOST_NESTED:
            raise OSError("a page header is nested too deep")
        match kind:
            case 1 | 2 | 3:  # in a list a bool is a byte
                return self._byte()
            case 4 | 5 | 6:
                return self._integer()
            case 7:
                return self._read(8)
            case 8:
                return self._read(self._varint())
            case 9 | 10:
                head = self._byte()
                for _ in range(head >> 4 if head >> 4 < 15 else self._varint()):
                    self._value(head & 15, depth + 1)
                return None
            case 12:
                return self.struct(depth + 1)
        raise OSError(f"a page header has a field of unknown type {kind}")

    def _read(self, size: int) -> bytes:
        self.size += size
        if self.size > _LONGEST_HEADER:
            raise OSError(f"a page header is longer than {_LONGEST_HEADER:,} bytes")
        found = self._stream.read(size)
        if len(found) < size:
            raise OSError("the file ends in a page header")
        return found

    def _byte(self) -> int:
        return self._read(1)[0]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise OSError("a page header has a number of more than 64 bits")

    def _integer(self) -> int:
        """Zigzag."""
        value = self._varint()
        return value >> 1 ^ -(value & 1)
