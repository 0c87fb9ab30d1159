"""What records share, out of core: names of 128 bits, a sorted run of them per shard, matched range by range.

A name stands for a content, a group or a band of a MinHash signature; records with the same name belong together.
Each shard writes its names once, sorted by their high halves (a *run*); where they fall is as good as random, so that
an even cut of the range cuts all runs into even parts. One range is matched at a time, by a job of its own, in memory
that the number of ranges bounds. Nothing is shuffled over the network: a range reads its slice of every run.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.splitmix import U64

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])
"""A name (its two halves) and the row of its shard that bears it."""

RANGE_BYTES = 256 * 2**20
"""Entries that a range has at most, if names are spread evenly; matching takes about three times that in memory."""

PAIRS = "pairs.npy"


def write_run(path: Path, high: U64, low: U64, rows: np.ndarray[Any, Any]) -> None:
    """Write the names of one shard: each has the row that bears it; a row may bear several."""
    order = np.argsort(high, kind="stable")  # or equal names lie as the processor likes
    run = np.empty(len(rows), dtype=ENTRY)
    run["high"], run["low"], run["row"] = high[order], low[order], rows[order]
    np.save(path, run)


@dataclass(frozen=True)
class Match:
    """Find the records that share a name with `low` <= its high half <= `high`; write them to `folder`."""

    runs: tuple[Path, ...]
    starts: tuple[int, ...]
    """The number of each shard's first record."""
    taking_part: Path
    """One bool per record: whether it counts."""
    low: int
    high: int
    folder: Path

    @property
    def name(self) -> str:
        """The range, as an error names it."""
        return f"{self.folder.parent.name} {self.low:016x}"


def matches(runs: Sequence[Path], starts: Sequence[int], taking_part: Path, folder: Path) -> list[Match]:
    """The jobs that match all names; each has a directory of its own in `folder`."""
    entries = sum(len(np.load(run, mmap_mode="r")) for run in runs)
    count = max(1, -(-entries * ENTRY.itemsize // RANGE_BYTES))
    cuts = [index * 2**64 // count for index in range(count + 1)]
    return [
        Match(tuple(runs), tuple(starts), taking_part, low, high - 1, folder / f"{index:05d}")
        for index, (low, high) in enumerate(pairwise(cuts))
    ]


def match(job: Match) -> None:
    """Pair each record with the first that has the same name: (n, 2) int64 record numbers, the first one first."""
    taking_part = np.load(job.taking_part, mmap_mode="r")
    entries = _sharing(np.concatenate([*_slices(job, taking_part), np.empty(0, dtype=_GLOBAL)]))
    entries = entries[np.lexsort((entries["row"], entries["low"], entries["high"]))]
    is_new = np.ones(len(entries), dtype=bool)
    is_new[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
    first = entries["row"][np.maximum.accumulate(np.where(is_new, np.arange(len(entries)), 0))]
    np.save(job.folder / PAIRS, np.stack([first[~is_new], entries["row"][~is_new]], axis=1))


def _sharing(entries: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The entries whose high half another one has, too: most have no other, and only these need be put in order."""
    high = np.ascontiguousarray(entries["high"])  # which numpy sorts in half the time
    order = np.argsort(high)
    high = high[order]
    is_shared = np.zeros(len(entries), dtype=bool)
    is_shared[1:] = high[1:] == high[:-1]
    is_shared[:-1] |= is_shared[1:]
    return entries[order[is_shared]]


_GLOBAL = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


def _slices(job: Match, taking_part: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    for path, start in zip(job.runs, job.starts, strict=True):
        run = np.asarray(np.load(path, mmap_mode="r"))  # a memmap is slow to look up single entries in
        part = run[bisect_left(run["high"], job.low) : bisect_right(run["high"], job.high)]
        entries = part.astype(_GLOBAL)
        entries["row"] += start
        yield entries[taking_part[entries["row"]]]
