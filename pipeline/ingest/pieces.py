"""What every kind of source comes down to: pieces in a fixed order, each of which reads as a stream of outcomes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from pipeline.chat.schemas import Message

EXCERPT_BYTES = 200
"""How much of a bad record is kept to look at."""


class Record(NamedTuple):
    """A document (its text) or a conversation (its messages), with the columns that data/README.md describes."""

    id: str
    source: str
    group: str
    split: str | None
    content: str | list[Message]


class LeftOut(NamedTuple):
    """Something of which no record is made on purpose."""

    reason: str


class BadRecord(NamedTuple):
    """A record, or a file, that cannot be read, as the table of the quarantine has it."""

    source: str
    file: str
    """The file's name, as ids have it."""
    line: int | None
    """Or row, from 1; null where the file as a whole is bad."""
    reason: str
    message: str
    excerpt: bytes
    """Its first bytes, at most EXCERPT_BYTES."""
    where: str
    """For an error: the path, and the line or row."""


Outcome = Record | LeftOut | BadRecord


class Bounds(NamedTuple):
    """What a piece may make of a source that nobody vouches for."""

    record_bytes: int
    """The length of a line, of a row's text and group, and of the documents that a text file is cut into."""
    expansion: float
    """How many times its size a compressed file may decompress to; always as much as one record."""


class Piece(Protocol):
    """A picklable part of a source, small enough to be one shard, or read as a stream."""

    @property
    def name(self) -> str:
        """That of its file."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes of text it holds."""
        ...

    def read(self, bounds: Bounds) -> Iterator[Outcome]:
        """Read it, in memory that the bounds hold down.

        Raises:
            BadFileError: its file cannot be read, or read on.
        """
        ...


def content_bytes(content: str | list[Message]) -> int:
    """The text of a record, in bytes of UTF-8."""
    if isinstance(content, str):
        return len(content) if content.isascii() else len(content.encode())
    return sum(content_bytes(message["content"]) for message in content)


def record_bytes(record: Record) -> int:
    """What a record takes, in bytes of UTF-8: its text, and its group where that is more than its id again."""
    group = 0 if record.group == record.id else content_bytes(record.group)
    return content_bytes(record.content) + group


def pack(pieces: Iterable[Piece], shard_bytes: int) -> list[list[Piece]]:
    """Group the pieces into jobs of at most about `shard_bytes`, in order; a job has at least one piece.

    A job also ends where the hash of the next piece's name says so, at every half `shard_bytes` or so: a file more
    or less then changes the jobs around it, not all that follow.
    """
    jobs: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if not jobs or piece.size > room or _opens(piece, shard_bytes):
            jobs.append([])
            room = shard_bytes
        jobs[-1].append(piece)
        room -= piece.size
    return jobs


def _opens(piece: Piece, shard_bytes: int) -> bool:
    drawn = int.from_bytes(hashlib.blake2b(piece.name.encode(), digest_size=8).digest()) / 2**64
    return drawn < 2 * piece.size / shard_bytes
