"""What records share, out of core: names of 128 bits, a sorted run of them per shard, matched range by range.

A name stands for a content, a group or a band of a MinHash signature; records with the same name belong together.
Each shard writes its names once, sorted by their high halves (a *run*); where they fall is as good as random, so that
an even cut of the range cuts all runs into even parts. One range is matched at a time, by a job of its own, in memory
that the number of ranges bounds. Nothing is shuffled over the network: a range reads its slice of every run. The list
of the runs is written and hashed once, and the ranges' jobs name it: a job and its key do not grow with the shards.
"""

from __future__ import annotations

import json
import os
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays import I64, U64
from pipeline.hashing import file_sha256, text_sha256
from pipeline.shards.threads import map_threads

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])
"""A name (its two halves) and the row of its shard that bears it."""

RANGE_BYTES = 256 * 2**20
"""Entries that a range has at most, if names are spread evenly; matching takes about twice that in memory."""
SMALL_RANGE_BYTES, SMALL_RANGES = 32 * 2**20, 16
"""Up to so many ranges have only as much, so that all workers have some."""

PAIRS = "pairs.npy"
LIST = "runs.jsonl"


def write_run(path: Path, high: U64, low: U64, rows: np.ndarray[Any, Any]) -> None:
    """Write the names of one shard: each has the row that bears it; a row may bear several.

    There is no header, for each range would have to read it.
    """
    order = np.argsort(high, kind="stable")  # or equal names lie as the processor likes
    run = np.empty(len(rows), dtype=ENTRY)
    run["high"], run["low"], run["row"] = high[order], low[order], rows[order]
    run.tofile(path)


@dataclass(frozen=True)
class Runs:
    """What all ranges read."""

    listed: Path = field(metadata={"in_key": False})  # of pipeline.shards.keys: the hash below stands for all of it
    """A line [path, start] for each run; `start` is the number of its shard's first record."""
    taking_part: Path = field(metadata={"in_key": False})
    """One bool per record: whether it counts."""
    sha256: str
    """Of the runs' contents, their starts, and who takes part."""


@dataclass(frozen=True)
class Match:
    """Find the records that share a name with `low` <= its high half <= `high`; write them to `folder`."""

    runs: Runs
    low: int
    high: int
    folder: Path

    @property
    def name(self) -> str:
        """The range, as an error names it."""
        return f"{self.folder.parent.name} {self.low:016x}"


def matches(runs: Sequence[Path], starts: Sequence[int], taking_part: Path, folder: Path) -> list[Match]:
    """The jobs that match all names; each has a directory of its own in `folder`.

    Args:
        runs: written by `write_run`, one per shard.
        starts: the number of each shard's first record.
        taking_part: one bool per record: whether it counts.
        folder: the list of the runs is written here.
    """
    shared = _share(runs, starts, taking_part, folder)
    count = ranges_for(sum(run.stat().st_size for run in runs))
    cuts = [index * 2**64 // count for index in range(count + 1)]
    return [Match(shared, low, high - 1, folder / f"{index:05d}") for index, (low, high) in enumerate(pairwise(cuts))]


def ranges_for(size: int) -> int:
    """Into how many ranges so many bytes of entries are cut."""
    return max(1, -(-size // RANGE_BYTES), min(-(-size // SMALL_RANGE_BYTES), SMALL_RANGES))


def _share(runs: Sequence[Path], starts: Sequence[int], taking_part: Path, folder: Path) -> Runs:
    folder.mkdir(parents=True, exist_ok=True)
    listed = folder / LIST
    with listed.open("w", encoding="utf-8") as file:
        for path, start in zip(runs, starts, strict=True):
            file.write(json.dumps([str(path), start]) + "\n")
    sums = map_threads(file_sha256, [taking_part, *runs])
    return Runs(listed, taking_part, text_sha256(json.dumps([sums, list(starts)])))


def match(job: Match) -> None:
    """Pair each record with the first that has the same name: (n, 2) int64 record numbers, the first one first."""
    entries, bounds, starts = _slices(job)
    shared = _shared(entries["high"])
    records = entries["row"][shared] + starts[np.searchsorted(bounds, shared, side="right") - 1]
    takes_part = np.load(job.runs.taking_part, mmap_mode="r")[records]
    shared, records = shared[takes_part], records[takes_part]
    high, low = entries["high"][shared], entries["low"][shared]
    order = np.lexsort((records, low, high))
    high, low, records = high[order], low[order], records[order]
    is_new = np.ones(len(records), dtype=bool)
    is_new[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    first = records[np.maximum.accumulate(np.where(is_new, np.arange(len(records)), 0))]
    np.save(job.folder / PAIRS, np.stack([first[~is_new], records[~is_new]], axis=1))


def _shared(high: U64) -> I64:
    """The places of what stands more than once: most does not, and only this need be looked at, and put in order."""
    order = np.argsort(high)
    high = high[order]
    is_shared = np.zeros(len(high), dtype=bool)
    is_shared[1:] = high[1:] == high[:-1]
    is_shared[:-1] |= is_shared[1:]
    return np.sort(order[is_shared])


def _slices(job: Match) -> tuple[np.ndarray[Any, Any], I64, I64]:
    """The range's part of all runs, one after another: the entries, where each run's begin, and the number of its
    shard's first record."""
    parts, starts = [], array("q")
    with job.runs.listed.open(encoding="utf-8") as file:
        for line in file:
            path, start = json.loads(line)
            if os.stat(path).st_size:  # nothing of none can be mapped
                run = np.asarray(np.memmap(path, ENTRY, "r"))  # a memmap is slow to look up single entries in
                part = run[bisect_left(run["high"], job.low) : bisect_right(run["high"], job.high)]
                parts.append(part.tobytes())  # a process has only so many maps
                starts.append(start)
    sizes = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts)) // ENTRY.itemsize
    return np.frombuffer(b"".join(parts), dtype=ENTRY), np.cumsum(sizes) - sizes, np.frombuffer(starts, dtype=np.int64)
