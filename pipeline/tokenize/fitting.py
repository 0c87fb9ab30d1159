"""Rows of whole records, by best fit decreasing."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import mapped
from pipeline.rows import smallest_uint
from pipeline.tokenize.pieces import Pieces, ranges

RECORDS, BOUNDS = "records.npy", "bounds.npy"


@dataclass(frozen=True)
class Fitted:
    """Whole records in rows."""

    lengths: np.ndarray
    """(records,) int64: tokens of each."""
    records: np.ndarray
    """int64: those of row 0, of row 1, and so on."""
    bounds: np.ndarray
    """(rows + 1,) int64: the records of row r are `records[bounds[r] : bounds[r + 1]]`."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def pieces(self, rows: np.ndarray) -> Pieces:
        """What is in `rows`, in that order."""
        counts = self.bounds[rows + 1] - self.bounds[rows]
        records = self.records[ranges(self.bounds[rows], counts)]
        return Pieces(records, np.zeros_like(records), self.lengths[records], counts)


def fit(lengths: np.ndarray, seqlen: int, folder: Path) -> Fitted:
    """Rows of whole records, by best fit decreasing: from the longest on, each goes where it leaves the least room.

    Records of one length are placed together, as many at a time as the rows with the least sufficient room take: O(N)
    in records, and never more steps than records. Rows, and records within a row, come out in the order of their
    numbers.

    Args:
        lengths: (records,) tokens of each record, at most `seqlen`; 0 of one that is left out.
        folder: the plan's files are written here, and two of 8 bytes a record and one of 8 a row meanwhile.
    """
    counts = count_lengths(lengths, seqlen)
    scratch = [folder / f"{name}.npy" for name in ("by-length", "row-of", "numbers")]
    by_length = mapped.make(scratch[0], "i8", int(counts.sum()))
    places = np.cumsum(counts[::-1]) - counts[::-1]  # by what a record leaves of a row: the longest come first
    for records in _kept(lengths):
        _sort_into(by_length, places, (seqlen - lengths[records]).astype(smallest_uint(seqlen)), records)
    row_of = mapped.make(scratch[1], "i8", len(lengths))
    rows = _place(counts, by_length, row_of)
    numbers = mapped.make(scratch[2], "i8", rows)
    _number_by_first(row_of, numbers, _kept(lengths))
    sizes = numbers  # whose work is done
    sizes[:] = 0
    for records in _kept(lengths):
        np.add.at(sizes, row_of[records], 1)
    bounds = mapped.write(folder / BOUNDS, "i8", _bounds(sizes))
    places = sizes
    for block in mapped.blocks(rows):
        places[block] = bounds[block]
    grouped = mapped.make(folder / RECORDS, "i8", int(counts.sum()))
    for records in _kept(lengths):
        _sort_into(grouped, places, row_of[records], records)
    for path in scratch:
        path.unlink()
    return Fitted(lengths, grouped, bounds)


def _place(counts: np.ndarray, by_length: np.ndarray, row_of: np.ndarray) -> int:
    """Best fit decreasing: write the row of each record to `row_of`; returns the number of rows.

    Args:
        counts: (seqlen + 1,) records of each length.
        by_length: all records, from the longest on.
        row_of: (records,)
    """
    seqlen, rows, placed = len(counts) - 1, 0, 0
    rooms: list[int] = []  # what some rows have left, sorted, each value once
    rows_with: dict[int, list[range]] = {}  # those rows, by what they have left

    def leave(found: list[range], room: int) -> None:
        if found and room:
            if room not in rows_with:
                rows_with[room] = []
                insort(rooms, room)
            rows_with[room] += found

    for length in np.flatnonzero(counts)[::-1].tolist():
        left = int(counts[length])
        while left:
            place = bisect_left(rooms, length)
            if place < len(rooms):
                room = rooms.pop(place)
                candidates = rows_with.pop(room)
            else:
                room = seqlen
                candidates = [range(rows, rows - -left // (room // length))]
                rows = candidates[0].stop
            # A row that has taken one record has the least sufficient room until it cannot take another.
            each = room // length
            full, candidates = _split(candidates, left // each)
            count = each * sum(map(len, full))
            rest = left - count if candidates else 0
            last, candidates = _split(candidates, 1 if rest else 0)
            for taken, times in ((full, each), (last, rest)):
                for numbers in _numbers(taken, mapped.BLOCK // each + 1):
                    own = by_length[placed : placed + times * len(numbers)]
                    row_of[own] = np.repeat(numbers, times)
                    placed += len(own)
            leave(full, room - each * length)
            leave(last, room - rest * length)
            leave(candidates, room)
            left -= count + rest
    return rows


def _split(runs: list[range], count: int) -> tuple[list[range], list[range]]:
    """The first `count` of the numbers in some runs, if there are as many, and the others."""
    for place, run in enumerate(runs):
        if len(run) > count:
            return [*runs[:place], *([run[:count]] if count else [])], [run[count:], *runs[place + 1 :]]
        count -= len(run)
    return runs, []


def _numbers(runs: list[range], size: int) -> Iterator[np.ndarray]:
    """The numbers in some runs, up to `size` at a time."""
    while runs:
        part, runs = _split(runs, size)
        yield ranges(np.array([run.start for run in part]), np.array([len(run) for run in part]))


def _number_by_first(row_of: np.ndarray, numbers: np.ndarray, blocks: Iterator[np.ndarray]) -> None:
    """Number the rows anew, by their first records: `row_of` is changed, a block of records after another.

    Args:
        numbers: (rows,) zeros, for the new number of each row, plus 1.
    """
    known = 0
    for records in blocks:
        old = row_of[records]
        new = old[numbers[old] == 0]
        rows, firsts = np.unique(new, return_index=True)
        numbers[rows[np.argsort(firsts)]] = np.arange(known, known + len(rows)) + 1
        known += len(rows)
        row_of[records] = numbers[old] - 1


def _bounds(sizes: np.ndarray) -> Iterator[np.ndarray]:
    """0, and where each row ends among the records."""
    end = np.zeros(1, dtype=np.int64)
    yield end
    for block in mapped.blocks(len(sizes)):
        ends = end[-1] + np.cumsum(sizes[block])
        yield ends
        end = ends


def count_lengths(lengths: np.ndarray, seqlen: int) -> np.ndarray:
    """(seqlen + 1,) int64: how many records have so many tokens; those of 0 are not counted."""
    counts = np.zeros(seqlen + 1, dtype=np.int64)
    for block in mapped.blocks(len(lengths)):
        counts += np.bincount(lengths[block], minlength=seqlen + 1)
    counts[0] = 0
    return counts


def fewest_rows(lengths: np.ndarray, seqlen: int) -> int:
    """A number of rows below which no packing of whole records comes: bound L2 of Martello and Toth (1990).

    Two records above half a row share none, and what is left beside one takes only shorter ones: for each k up to
    half a row, the records of at least k tokens need a row for each above half, and for what overflows from those.

    Args:
        lengths: as for `fit`.
    """
    counts = count_lengths(lengths, seqlen)
    number, tokens = np.cumsum(counts), np.cumsum(counts * np.arange(seqlen + 1))  # of records up to a length
    half = seqlen // 2
    k = np.arange(half + 1)
    below = np.maximum(k - 1, 0)
    companions = number[seqlen - k] - number[half]  # above half, with room for k
    room = companions * seqlen - (tokens[seqlen - k] - tokens[half])
    small = tokens[half] - tokens[below]
    overflow = np.maximum(0, -(-(small - room) // seqlen))
    return int((number[seqlen] - number[half] + overflow).max())


def _kept(lengths: np.ndarray) -> Iterator[np.ndarray]:
    """The records that are not left out, a block at a time."""
    for block in mapped.blocks(len(lengths)):
        yield block.start + np.flatnonzero(lengths[block])


def _sort_into(target: np.ndarray, places: np.ndarray, keys: np.ndarray, values: np.ndarray) -> None:
    """One block of a stable sort by counting: each value goes to the next of the places of its key, `places[key]`."""
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    firsts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.empty(0, np.int64)
    found, counts = keys[firsts], np.diff(firsts, append=len(keys))
    target[ranges(places[found], counts)] = values[order]
    places[found] += counts
