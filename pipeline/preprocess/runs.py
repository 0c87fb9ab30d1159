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
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.hashing import file_sha256, text_sha256
from pipeline.shards.threads import map_threads
from pipeline.splitmix import U64

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<u4")])
"""A name (its two halves) and the row of its shard that bears it."""

RANGE_BYTES = 256 * 2**20
"""Entries that a range has at most, if names are spread evenly; matching takes about three times that in memory."""
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
    parts, starts = _slices(job)
    shared = map(_numbered, parts, _sharing(parts), starts)
    entries = np.concatenate([*shared, np.empty(0, dtype=_GLOBAL)])
    entries = entries[np.load(job.runs.taking_part, mmap_mode="r")[entries["row"]]]
    entries = entries[np.lexsort((entries["row"], entries["low"], entries["high"]))]
    is_new = np.ones(len(entries), dtype=bool)
    is_new[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
    first = entries["row"][np.maximum.accumulate(np.where(is_new, np.arange(len(entries)), 0))]
    np.save(job.folder / PAIRS, np.stack([first[~is_new], entries["row"][~is_new]], axis=1))


def _sharing(parts: Sequence[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Of each part, which entries have a high half that another one has, too: most have not, and are left alone."""
    high = np.concatenate([*(part["high"] for part in parts), np.empty(0, dtype=np.uint64)])
    order = np.argsort(high)
    high = high[order]
    is_shared = np.zeros(len(high), dtype=bool)
    is_shared[1:] = high[1:] == high[:-1]
    is_shared[:-1] |= is_shared[1:]
    shared = np.sort(order[is_shared])
    bounds = np.cumsum([0, *map(len, parts)])
    cuts = np.searchsorted(shared, bounds)
    return [shared[first:end] - bound for (first, end), bound in zip(pairwise(cuts), bounds[:-1], strict=True)]


def _numbered(part: np.ndarray[Any, Any], places: np.ndarray[Any, Any], start: int) -> np.ndarray[Any, Any]:
    """The entries at `places`, with the numbers of the records for the rows of their shard."""
    entries = part[places].astype(_GLOBAL)
    entries["row"] += start
    return entries


_GLOBAL = np.dtype([("high", "<u8"), ("low", "<u8"), ("row", "<i8")])


def _slices(job: Match) -> tuple[list[np.ndarray[Any, Any]], list[int]]:
    """The range's part of each run, and the number of its shard's first record."""
    parts, starts = [], []
    with job.runs.listed.open(encoding="utf-8") as file:
        for line in file:
            path, start = json.loads(line)
            if os.stat(path).st_size:  # nothing of none can be mapped
                run = np.asarray(np.memmap(path, ENTRY, "r"))  # a memmap is slow to look up single entries in
                parts.append(run[bisect_left(run["high"], job.low) : bisect_right(run["high"], job.high)])
                starts.append(start)
    return parts, starts
