"""Rows filled to the last token, records cut where rows end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline import mapped
from pipeline.tokenize.pieces import Pieces, ranges

ENDS, STARTS = "ends.npy", "starts.npy"


@dataclass(frozen=True)
class Cut:
    """Rows filled to the last token."""

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
        which = ranges(first, counts)
        begins = np.where(which > 0, self.ends[which - 1], 0)
        starts = np.maximum(np.repeat(opens, counts), begins) - begins
        stops = np.minimum(np.repeat(closes, counts), self.ends[which]) - begins
        return Pieces(self.order[which], starts, stops, counts)


def cut(lengths: np.ndarray, order: np.ndarray, seqlen: int, folder: Path) -> Cut:
    """Rows filled to the last token: a record that does not fit is cut at the row's end and goes on in the next row.

    The piece there repeats the last token before the cut, so that the first token after it has something to be
    predicted from: each token of a record but the first is predicted exactly once.

    Args:
        lengths: (records,) tokens of each record, at least 1.
        order: (records,) the records, in the order in which they fill rows.
        seqlen: at least 2.
        folder: the plan's files are written here.
    """
    ends = mapped.write(folder / ENDS, "i8", _ends(lengths, order))
    return Cut(order, ends, mapped.write(folder / STARTS, "i8", _in_blocks(_row_starts(ends, seqlen))), seqlen)


def _ends(lengths: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
    so_far = 0
    for block in mapped.blocks(len(order)):
        ends = so_far + np.cumsum(lengths[order[block]])
        so_far = int(ends[-1])
        yield ends


def _in_blocks(numbers: Iterator[int]) -> Iterator[np.ndarray]:
    while (block := np.fromiter(islice(numbers, mapped.BLOCK), np.int64)).size:
        yield block


def _row_starts(ends: np.ndarray, seqlen: int) -> Iterator[int]:
    """Rows advance by `seqlen` - 1 tokens, as one is repeated; after a row that ends with a record none is.

    From a row at `at` that repeats none on, the first to end with a record does so where one of `ends` lies a multiple
    of `seqlen` - 1, plus 1, behind `at`.
    """
    step, at, index = seqlen - 1, 0, 0
    while index < len(ends):  # the record that begins at `at`
        index = _first_full_row(ends, index, at, step)
        if index == len(ends):  # no row does
            yield from range(at, int(ends[-1]), step)
            return
        end = int(ends[index])
        yield from range(at, end - 1, step)
        at, index = end, index + 1


def _first_full_row(ends: np.ndarray, index: int, at: int, step: int) -> int:
    """The first of `ends`, from `index` on, that lies k * step + 1 behind `at`, k at least 1; else, how many there are.

    About one in `step` does: so many are looked at first, and more each time that none did.
    """
    width = step
    while index < len(ends):
        behind = ends[index : index + width] - (at + 1)
        found = np.flatnonzero((behind % step == 0) & (behind > 0))
        if found.size:
            return index + int(found[0])
        index, width = index + width, min(2 * width, mapped.BLOCK)
    return len(ends)
