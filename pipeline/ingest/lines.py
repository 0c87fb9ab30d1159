"""Lines out of blocks of bytes, in bounded memory however long a line is; and which of them a byte range owns.

A range owns the lines that start in it. So a file can be cut anywhere, without reading it: a reader skips the end of
the line that it lands in, and reads the last of its own beyond the end of its range.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.ingest.blocks import BLOCK, read_blocks
from pipeline.ingest.pieces import Bounds
from pipeline.sources import File

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line."""

    offset: int
    """Of its first byte in the (decompressed) file."""
    number: int
    """From 1."""
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
        lines = split_lines(read_blocks(self.file, before, bounds), bounds.record_bytes)
        if self.start:
            next(lines, None)
        for index, (offset, size, data) in enumerate(lines):
            offset += before
            yield Line(offset, self.number + index, size, data if offset else data.removeprefix(BYTE_ORDER_MARK))
            if self.end is not None and offset + size >= self.end:
                return


def split_lines(blocks: Iterable[bytes], limit: int) -> Iterator[tuple[int, int, bytes]]:
    """The offset, size and bytes of each line, its newline with it; of one above `limit`, a part of its beginning."""
    offset, size, held = 0, 0, b""
    for block in blocks:
        *ends, rest = block.split(b"\n")
        for end in ends:
            size += len(end) + 1
            yield offset, size, held + end + b"\n" if size <= limit else held or end[:limit]
            offset, size, held = offset + size, 0, b""
        size += len(rest)
        if size <= limit or not held:
            held += rest
    if size:
        yield offset, size, held


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
