"""What matching costs beyond its bytes: each range opens every run, so that opens are shards x ranges.

Fitted to two numbers of ranges of the same runs, checked at another number of both.
"""

from __future__ import annotations

import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.preprocess import runs

ENTRIES = 500
"""Of a run."""
FITTED = ((200, 2), (200, 20))
CHECKED = (600, 12)
"""Shards, ranges."""


def _matching(shards: int, ranges: int) -> float:
    """CPU seconds of matching all ranges."""
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        place, rng, taking_part = Path(folder), np.random.default_rng(0), Path(folder, "taking-part.npy")
        paths = [place / f"{shard}.npy" for shard in range(shards)]
        for path in paths:
            high, low = rng.integers(2**64, size=(2, ENTRIES), dtype=np.uint64)
            runs.write_run(path, high, low, np.arange(ENTRIES))
        np.save(taking_part, np.ones(shards * ENTRIES, dtype=bool))
        (whole,) = runs.matches(paths, [shard * ENTRIES for shard in range(shards)], taking_part, place / "out")
        started = time.process_time()
        whole.folder.mkdir()
        for low, high in pairwise(index * 2**64 // ranges for index in range(ranges + 1)):
            runs.match(runs.Match(whole.runs, low, high - 1, whole.folder))
        return time.process_time() - started


def seconds_per_open() -> float:
    """CPU seconds to open a run and find its part of a range; prints the check."""
    (shards, few), (_, many) = FITTED
    _matching(shards, few)  # warm
    low, high = (min(_matching(shards, ranges) for _ in range(3)) for ranges in (few, many))
    each = (high - low) / (shards * (many - few))
    entry = (low - each * shards * few) / (shards * ENTRIES)
    shards, ranges = CHECKED
    predicted = each * shards * ranges + entry * shards * ENTRIES
    print(f"  matching {shards} shards in {ranges} ranges, cpu-s  {predicted:.2f} / {_matching(shards, ranges):.2f}")
    return each


def print_opens(megabytes: float, shard_mb: float, ranges: float, each: float) -> None:
    """Print what opening takes for so much text, in shards of that size and some larger ones."""
    for size in (shard_mb, 16 * shard_mb, 64 * shard_mb):
        opens = megabytes / size * ranges
        print(
            f"  opens  {opens:.1e} with shards of {size:g} MB, {opens * each / 3600:,.0f} core-hours"
            f" ({each * 1e6:.0f} us each, files in memory)"
        )
