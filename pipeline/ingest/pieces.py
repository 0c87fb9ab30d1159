"""What every kind of source comes down to: pieces in a fixed order, each of which reads as a list of records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from pipeline.chat.schemas import Message


class Record(NamedTuple):
    """A document (its text) or a conversation (its messages), with the columns that data/README.md describes."""

    id: str
    source: str
    group: str
    split: str | None
    content: str | list[Message]


class Reading(NamedTuple):
    """The records of a piece, and how much of it made none on purpose, by reason."""

    records: list[Record]
    left_out: Counter[str]


class Piece(Protocol):
    """A picklable part of a source, small enough to be read at once."""

    @property
    def size(self) -> int:
        """About how many bytes of text it holds."""
        ...

    def read(self) -> Reading:
        """Read it.

        Raises:
            ValueError: something in it is malformed; the message says where and what to do.
        """
        ...


def pack(pieces: Iterable[Piece], shard_bytes: int) -> list[list[Piece]]:
    """Cut the pieces into shards of about `shard_bytes`, in order; a shard has at least one piece."""
    shards: list[list[Piece]] = []
    room = 0
    for piece in pieces:
        if not shards or piece.size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(piece)
        room -= piece.size
    return shards
