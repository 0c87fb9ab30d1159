"""Which tokens go into which row. Pure: lengths in, a plan out; numpy all the way, so records are cheap.

A row is a list of pieces in order; padding follows the last.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Pieces(NamedTuple):
    """Pieces of records, one after another: tokens `starts` to `stops` of `records`, each (pieces,) int64."""

    records: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    counts: np.ndarray
    """(rows,) int64: how many of the pieces are each row's."""


@dataclass(frozen=True)
class Fitted:
    """What `fit` returns: whole records in rows."""

    lengths: np.ndarray
    """(records,) int64: tokens of each."""
    records: np.ndarray
    """(records,) int64: those of row 0, of row 1, and so on."""
    bounds: np.ndarray
    """(rows + 1,) int64: the records of row r are `records[bounds[r] : bounds[r + 1]]`."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def pieces(self, rows: np.ndarray) -> Pieces:
        """What is in `rows`, in that order."""
        counts = self.bounds[rows + 1] - self.bounds[rows]
        records = self.records[_ranges(self.bounds[rows], counts)]
        return Pieces(records, np.zeros_like(records), self.lengths[records], counts)


def fit(lengths: np.ndarray, seqlen: int) -> Fitted:
    """Rows of whole records, by best fit decreasing: from the longest on, each goes where it leaves the least room.

    Records of one length are placed together, as many at a time as the rows with the least sufficient room take: O(N)
    in records after sorting them, and never more steps than records. Rows, and records within a row, come out in the
    order of their numbers.

    Args:
        lengths: (records,) tokens of each record, from 1 to `seqlen`.
    """
    lengths = lengths.astype(np.int64)
    order = np.argsort(-lengths, kind="stable")
    values, firsts = np.unique(-lengths[order], return_index=True)
    row_of = np.empty_like(order)
    rows = 0
    rooms: list[int] = []  # what some rows have left, sorted, each value once
    rows_with: dict[int, list[np.ndarray]] = {}  # those rows, by what they have left

    def leave(found: np.ndarray, room: int) -> None:
        if len(found) and room:
            if room not in rows_with:
                rows_with[room] = []
                insort(rooms, room)
            rows_with[room].append(found)

    for length, records in zip((-values).tolist(), np.split(order, firsts)[1:], strict=True):
        while len(records):
            place = bisect_left(rooms, length)
            if place < len(rooms):
                room = rooms.pop(place)
                candidates = np.concatenate(rows_with.pop(room))
            else:
                room = seqlen
                candidates = np.arange(rows, rows - -len(records) // (room // length))
                rows += len(candidates)
            # A row that has taken one record has the least sufficient room until it cannot take another.
            each = room // length
            taken = np.repeat(candidates, each)[: len(records)]
            row_of[records[: len(taken)]] = taken
            full, rest = divmod(len(taken), each)
            leave(candidates[:full], room - each * length)
            leave(candidates[full : full + 1], room - rest * length)
            leave(candidates[full + 1 :], room)
            records = records[len(taken) :]
    grouped = np.argsort(row_of, kind="stable")
    counts = np.bincount(row_of, minlength=rows)
    starts = np.cumsum(counts) - counts
    by_first = np.argsort(grouped[starts])
    counts = counts[by_first]
    return Fitted(lengths, grouped[_ranges(starts[by_first], counts)], np.concatenate([[0], np.cumsum(counts)]))


def fewest_rows(lengths: np.ndarray, seqlen: int) -> int:
    """A number of rows below which no packing of whole records comes: bound L2 of Martello and Toth (1990).

    Two records above half a row share none, and what is left beside one takes only shorter ones: for each k up to
    half a row, the records of at least k tokens need a row for each above half, and for what overflows from those.

    Args:
        lengths: (records,) tokens of each record, from 1 to `seqlen`.
    """
    number = np.cumsum(np.bincount(lengths, minlength=seqlen + 1))  # of records up to a length, and their tokens
    tokens = np.cumsum(np.bincount(lengths, minlength=seqlen + 1) * np.arange(seqlen + 1))
    half = seqlen // 2
    k = np.arange(half + 1)
    below = np.maximum(k - 1, 0)
    companions = number[seqlen - k] - number[half]  # above half, with room for k
    room = companions * seqlen - (tokens[seqlen - k] - tokens[half])
    small = tokens[half] - tokens[below]
    overflow = np.maximum(0, -(-(small - room) // seqlen))
    return int((number[seqlen] - number[half] + overflow).max())


@dataclass(frozen=True)
class Cut:
    """What `cut` returns: rows filled to the last token."""

    order: np.ndarray
    """(records,) int64: the records, in the order in which they fill rows."""
    ends: np.ndarray
    """(records,) int64: where each ends in the stream of all their tokens, in that order."""
    starts: np.ndarray
    """(rows,) int64: where each row starts in that stream."""
    seqlen: int

    def __len__(self) -> int:
        return len(self.starts)

    def pieces(self, rows: np.ndarray) -> Pieces:
        """What is in `rows`, in that order."""
        opens = self.starts[rows]
        closes = np.minimum(opens + self.seqlen, self.ends[-1])
        first = np.searchsorted(self.ends, opens, side="right")
        counts = np.searchsorted(self.ends, closes, side="left") - first + 1
        which = _ranges(first, counts)
        begins = np.where(which > 0, self.ends[which - 1], 0)
        starts = np.maximum(np.repeat(opens, counts), begins) - begins
        stops = np.minimum(np.repeat(closes, counts), self.ends[which]) - begins
        return Pieces(self.order[which], starts, stops, counts)


def cut(lengths: np.ndarray, order: np.ndarray, seqlen: int) -> Cut:
    """Rows filled to the last token: a record that does not fit is cut at the row's end and goes on in the next row.

    The piece there repeats the last token before the cut, so that the first token after it has something to be
    predicted from: each token of a record but the first is predicted exactly once.

    Args:
        lengths: (records,) tokens of each record, at least 1.
        order: (records,) the records, in the order in which they fill rows.
        seqlen: at least 2.
    """
    ends = np.cumsum(lengths[order])
    return Cut(order, ends, np.fromiter(_row_starts(ends, seqlen), np.int64), seqlen)


def _row_starts(ends: np.ndarray, seqlen: int) -> Iterator[int]:
    """Rows advance by `seqlen` - 1 tokens, as one is repeated; after a row that ends with a record none is.

    From a row at `at` that repeats none on, the first to end with a record does so where one of `ends` lies a multiple
    of `seqlen` - 1, plus 1, behind `at`.
    """
    step, total = seqlen - 1, int(ends[-1])
    keys = np.sort(ends % step * (total + 1) + ends)  # by remainder, then by place
    at = 0
    while at < total:
        remainder = (at + 1) % step * (total + 1)
        index = int(np.searchsorted(keys, remainder + at + seqlen))
        end = int(keys[index]) - remainder if index < len(keys) else total + 1
        if end > total:  # no row does
            yield from range(at, total, step)
            return
        yield from range(at, end - 1, step)
        at = end


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from each of `starts` on, as many as `lengths` says, one after another."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
