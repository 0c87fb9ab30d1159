"""What is known and decided of each record, by its number: columns of fixed width in memory-mapped files.

A record's number is its place in the order of the shards. 40 bytes a record, and 40 more for components, the draw of
the splits and who takes part (`Ledger.make`); what of it is in memory is the operating system's choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import mapped
from pipeline.arrays import I64

SPLIT_CODES = ("test", "validation", "train")
"""Splits by code, in the order of precedence: of duplicates, the one with the lowest stays."""

TRAIN = SPLIT_CODES.index("train")

FREE = len(SPLIT_CODES)
"""The code of a record whose split the user's files do not fix."""

CONTAMINATED = "contaminated"
"""The reason of records that share enough n-grams with an evaluation record."""

MOST_SOURCES = 2**16 - 1
"""That `source` has codes for, and one for none."""

COLUMNS = {
    "kind": "u1",
    "source": "u2",
    "fixed": "u1",
    "split": "u1",
    "reason": "u1",
    "copies": "u2",
    "characters": "u8",
    "group_hash": "u8",
    "draw": "u8",
    "cause": "i8",
}
"""Their types."""


class Ledger:
    """The columns.

    `draw` is a hash of the record's id; `cause`, the number of the record for whose sake this one is dropped, or -1.
    Of `reason`, 0 stands for none and others for the place in `reasons`.
    """

    def __init__(self, folder: Path, starts: list[int], total: int) -> None:
        """
        Args:
            folder: where the columns are made anew.
            starts: the number of each shard's first record.
            total: the number of records.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.starts, self.total = folder, starts, total
        self._bounds = [*starts, total]
        self.reasons = ["none"]
        self._made = {name: self.make(name, dtype) for name, dtype in COLUMNS.items()}
        self._made["cause"][:] = -1
        self._made["copies"][:] = 1

    def make(self, name: str, dtype: str) -> np.ndarray[Any, Any]:
        """A further column of zeros, in `<name>.npy`.

        Raises:
            OSError: the disk is full.
        """
        return mapped.make(self.path(name), dtype, self.total)

    def path(self, name: str) -> Path:
        """The file of a column."""
        return self.folder / f"{name}.npy"

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return self._made[name]

    def shard(self, index: int) -> slice:
        """The records of a shard."""
        return self.shards(range(index, index + 1))

    def shards(self, run: range) -> slice:
        """The records of shards that follow each other, one at least."""
        return slice(self._bounds[run.start], self._bounds[run.stop])

    def blocks(self) -> Iterator[I64]:
        """The numbers of all records, so many at a time that a few numbers for each take no memory to speak of."""
        for block in mapped.blocks(self.total):
            yield np.arange(block.start, block.stop)

    def code(self, reason: str) -> int:
        """The code of a reason, the same each time."""
        if reason not in self.reasons:
            self.reasons.append(reason)
        return self.reasons.index(reason)

    def drop(self, rows: np.ndarray[Any, Any], reason: str, cause: np.ndarray[Any, Any] | int = -1) -> None:
        """Drop records, by their numbers (or a mask), for the sake of other ones."""
        self["reason"][rows] = self.code(reason)
        self["cause"][rows] = cause

    def stays(self, name: str) -> np.ndarray[Any, Any]:
        """Which records have no reason to be dropped, so far: (records,) bool, in `<name>.npy`."""
        own = (self["reason"][block] == 0 for block in mapped.blocks(self.total))
        return mapped.write(self.path(name), "?", own)
