"""Lines out of blocks of bytes, in bounded memory however long a line is; and which of them a byte range owns.

A range owns the lines that start in it. So a file can be cut anywhere, without reading it: a reader skips the end of
the line that it lands in, and reads the last of its own beyond the end of its range.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.ingest.blocks import BLOCK, read_blocks
from pipeline.ingest.pieces import Bounds
from pipeline.sources import File

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK_LINES = re.compile(rb"\n(?=(?:[^\S\n]*\n){8})(\s*\n)")
"""Eight or more, after the end of a line: a step of Python for each would read a gigabyte of newlines in a quarter of
an hour. Fewer, as between paragraphs, are faster line by line."""


class Line(NamedTuple):
    """One line; or several blank ones, one after another, that together are no longer than the limit."""

    offset: int
    """Of its first byte in the (decompressed) file."""
    number: int
    """From 1; of the first."""
    size: int
    """In bytes, with the newline that ends it."""
    data: bytes
    """All of it, or the beginning of one that is longer than the limit."""


@dataclass(frozen=True)
class Range:
    """The lines that start in bytes `start` to `end` of a file (None: its end). `number` is the first, and there is one
    unless `start` is 0."""

    file: File
    start: int
    end: int | None
    number: int

    @property
    def name(self) -> str:
        """That of its file."""
        return self.file.name

    @property
    def size(self) -> int:
        """In bytes; of a compressed file, compressed."""
        return (self.file.size if self.end is None else self.end) - self.start

    @property
    def whole(self) -> bool:
        """Whether it is a whole file."""
        return self.start == 0 and self.end is None

    def lines(self, bounds: Bounds) -> Iterator[Line]:
        """Its lines, a byte order mark taken off the first.

        Raises:
            BadFileError: the file cannot be read, or read on.
        """
        before = max(0, self.start - 1)
        lines = split_lines(read_blocks(self.file, before, bounds), bounds.record_bytes, before)
        if self.start:
            next(lines, None)  # one line: blank ones come together only after it
        number = self.number
        for offset, size, count, data in lines:
            if self.end is not None and offset + size >= self.end:
                if count > 1:
                    data = data[: data.index(b"\n", self.end - 1 - offset) + 1]
                    size = len(data)
                yield self._line(offset, number, size, data)
                return
            yield self._line(offset, number, size, data)
            number += count

    @staticmethod
    def _line(offset: int, number: int, size: int, data: bytes) -> Line:
        return Line(offset, number, size, data if offset else data.removeprefix(BYTE_ORDER_MARK))


def split_lines(blocks: Iterable[bytes], limit: int, offset: int = 0) -> Iterator[tuple[int, int, int, bytes]]:
    """The offset, size, count and bytes of each line, its newline with it; of one above `limit`, a part of it.

    The count is 1, but for blank lines that come together: those of a block that follow one another and lie in the
    same multiple of `limit`.

    Args:
        offset: of the first block.
    """
    size, held = 0, bytearray()
    for block in blocks:
        parts = _BLANK_LINES.split(block)
        for index, part in enumerate(parts):
            if index % 2:
                yield from _blank_lines(part, offset, limit)
                offset += len(part)
                continue
            *ends, rest = part.split(b"\n")
            if index < len(parts) - 1:
                ends, rest = [*ends, rest], b""  # its newline is the one before the blank lines
            for end in ends:
                size += len(end) + 1
                if held:
                    yield offset, size, 1, bytes(held) + end + b"\n" if size <= limit else bytes(held)
                    held.clear()
                else:
                    yield offset, size, 1, end + b"\n" if size <= limit else end[:limit]
                offset, size = offset + size, 0
            size += len(rest)
            if size <= limit or not held:
                held += rest
    if size:
        yield offset, size, 1, bytes(held)


def _blank_lines(lines: bytes, offset: int, limit: int) -> Iterator[tuple[int, int, int, bytes]]:
    """As many at a time as lie in the same multiple of `limit`; one that lies in two by itself."""
    start = 0
    while start < len(lines):
        edge = start + limit - (offset + start) % limit
        end = lines.rfind(b"\n", start, edge) + 1 or lines.index(b"\n", start) + 1
        yield offset + start, end - start, lines.count(b"\n", start, end), lines[start : min(end, start + limit)]
        start = end


def cut_lines(file: File, step: int, counts: list[int]) -> Iterator[Range]:
    """The ranges of `step` bytes that own a line, from the newlines in each of `count_ranges`."""
    number = 1
    for index, count in enumerate(counts):
        start = index * step
        if index == 0:
            yield Range(file, 0, min(step, file.size), 1)
        elif count:
            yield Range(file, start, min(start + step, file.size), number + 1)
        number += count


def count_ranges(file: File, step: int) -> list[tuple[int, int]]:
    """For each range of `step` bytes, the bytes in which a newline ends the line before one that it owns."""
    starts = range(0, file.size, step)
    return [(max(0, start - 1), min(start + step, file.size) - 1) for start in starts]


def count_newlines(file: File, start: int, end: int) -> int:
    """How many there are in bytes `start` to `end`.

    Raises:
        BadFileError: the file cannot be read.
    """
    count = 0
    with file.open() as stream:
        stream.seek(start)
        while start < end and (block := stream.read(min(BLOCK, end - start))):
            count += block.count(b"\n")
            start += len(block)
    return count
