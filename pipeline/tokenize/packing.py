"""Which tokens go into which row. Pure: lengths in, a plan out.

A row is a list of pieces in order; padding follows the last.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
    """Tokens `start` to `stop` of a record."""

    record: int
    start: int
    stop: int


def cut(lengths: np.ndarray, order: Iterable[int], seqlen: int) -> Iterator[list[Piece]]:
    """Rows filled to the last token: a record that does not fit is cut at the row's end and goes on in the next row.

    The piece there repeats the last token before the cut, so that the first token after it has something to be
    predicted from: each token of a record but the first is predicted exactly once.

    Args:
        lengths: (records,) tokens of each record, at least 1.
        order: the records, in the order in which they fill rows.
        seqlen: at least 2.
    """
    row: list[Piece] = []
    room = seqlen
    for record in order:
        start, length = 0, int(lengths[record])
        while True:
            stop = min(start + room, length)
            row.append(Piece(record, start, stop))
            room -= stop - start
            if room == 0:
                yield row
                row, room = [], seqlen
            if stop == length:
                break
            start = stop - 1
    if row:
        yield row


def fit(lengths: np.ndarray, seqlen: int) -> list[list[int]]:
    """Rows of whole records, by best fit decreasing: from the longest on, each goes where it leaves the least room.

    O(N log N) in records. Equal lengths go in the order of their numbers; rows, and records within a row,
    come out in the order of their numbers too.

    Args:
        lengths: (records,) tokens of each record, from 1 to `seqlen`.
    """
    rows: list[list[int]] = []
    rooms: list[int] = []  # what some rows have left, sorted, each value once
    rows_with: dict[int, list[int]] = {}  # those rows, by what they have left
    for record in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[record])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            row, left = len(rows), seqlen
            rows.append([])
        else:
            left = rooms[place]
            row = rows_with[left].pop()
            if not rows_with[left]:
                del rows_with[left], rooms[place]
        rows[row].append(record)
        left -= length
        if left not in rows_with:
            rows_with[left] = []
            insort(rooms, left)
        rows_with[left].append(row)
    return sorted(sorted(row) for row in rows)
