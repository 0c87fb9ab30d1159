"""The plan of the rows of one kind and split, in files, so that whoever writes some of the rows can look them up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline import mapped
from pipeline.rows import Sequences
from pipeline.tokenize.cutting import ENDS, STARTS, Cut, cut
from pipeline.tokenize.encoded import Encoded
from pipeline.tokenize.fitting import BOUNDS, RECORDS, Fitted, fit

TOKENS, ORDER = "tokens.npy", "order.npy"


@dataclass(frozen=True)
class PlanFiles:
    """Where the files of a plan are, and how they are read."""

    folder: Path
    """Of the plan, and of the list of the records (`encoded.join_encoded`)."""
    seqlen: int
    is_cut: bool
    inode: int
    """Of the list of the order: tells a plan from another in the same folder, as long as one is mapped."""


@dataclass(frozen=True)
class Plan:
    """The rows."""

    files: PlanFiles
    encoded: Encoded
    rows: Fitted | Cut
    order: np.ndarray
    """(rows,) int64: which of them is written first, and so on."""

    def sequences(self, first: int, count: int) -> tuple[Sequences, np.ndarray]:
        """What is in `count` rows from number `first` on, in the order in which they are written.

        Returns:
            The sequences, and (rows,) int64 how many of them each row has.
        """
        pieces = self.rows.pieces(self.order[first : first + count])
        return self.encoded.places(pieces.records, pieces.starts, pieces.stops).read(), pieces.counts


def plan_rows(tokens: np.ndarray, folder: Path, *, seqlen: int, is_cut: bool, rng: np.random.Generator | None) -> Plan:
    """Plan the rows and the order in which they are written: neighbours in training rows are drawn with `rng`.

    Args:
        tokens: (records,) of each record, those that go into rows; what `folder / TOKENS` has.
        folder: where the list of the records is; the plan is written here, too.
        is_cut: whether rows are filled to the last token, or hold whole records.
    """
    if is_cut:
        order = draw_order(len(tokens), rng, folder / RECORDS)
        rows, rng = len(cut(tokens, order, seqlen, folder)), None
    else:
        rows = len(fit(tokens, seqlen, folder))
    draw_order(rows, rng, folder / ORDER)
    return read_plan(PlanFiles(folder, seqlen, is_cut, (folder / ORDER).stat().st_ino))


def draw_order(size: int, rng: np.random.Generator | None, path: Path) -> np.ndarray:
    """The numbers below `size` as `rng.permutation(size)` has them, in the file `path`; ascending without `rng`."""
    numbers = mapped.make(path, "i8", size)
    for block in mapped.blocks(size):
        numbers[block] = np.arange(block.start, block.stop)
    if rng is not None:
        rng.shuffle(numbers)
    return numbers


@lru_cache(maxsize=1)
def read_plan(files: PlanFiles) -> Plan:
    """The plan, mapped."""
    folder = files.folder
    if files.is_cut:
        order, ends, starts = (mapped.read(folder / name) for name in (RECORDS, ENDS, STARTS))
        rows: Fitted | Cut = Cut(order, ends, starts, files.seqlen)
    else:
        rows = Fitted(*(mapped.read(folder / name) for name in (TOKENS, RECORDS, BOUNDS)))
    return Plan(files, Encoded(folder), rows, mapped.read(folder / ORDER))
