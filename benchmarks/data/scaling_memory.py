"""What merging and matching hold in memory, from the code itself: allocations, not pages of mapped files.

Each is measured at two sizes, so that what does not grow falls out, and holds for any size.
"""

from __future__ import annotations

import gc
import tempfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.preprocess.contamination.lookup import AT_A_TIME, Ngrams, merge, write_part
from pipeline.preprocess.runs import ENTRY, RANGE_BYTES, match, matches, write_run

MATCHED, MERGED = (1 << 19, 1 << 20), (1 << 16, 1 << 17)
OPENED = (500, 1500)
"""Entries and n-grams of a range, and runs that a range opens, at the two sizes."""


@dataclass(frozen=True)
class Held:
    """Bytes at the peak."""

    merging: float
    """For each n-gram of a range, of evaluation texts."""
    matching: float
    """For each byte of a range."""
    opening: float
    """For each run that a range opens, with an entry of it."""


def measure_memory() -> Held:
    """Measure."""
    gc.set_threshold(700)  # a stage lets more wait to be collected, but no more for more shards
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        place = Path(folder)
        return Held(
            _slope(lambda ngrams: _merging(ngrams, place), MERGED),
            _slope(lambda entries: _matching(entries, place), MATCHED) / ENTRY.itemsize,
            _slope(lambda shards: _opening(shards, place), OPENED),
        )


def _merging(ngrams: int, folder: Path) -> Callable[[], object]:
    part = folder / f"part-{ngrams}"
    part.mkdir()
    hashes, anchors = np.random.default_rng(0).integers(0, 1 << 64, (2, ngrams), dtype=np.uint64)
    made = Ngrams(hashes, np.zeros(ngrams, dtype=np.int64), np.sort(anchors))
    write_part(part, pl.Series(["evaluation"]), made, np.zeros(1, dtype=bool))
    return lambda: merge([part], folder / f"merged-{ngrams}")


def _matching(entries: int, folder: Path) -> Callable[[], object]:
    """Names of which none stands twice, as most bands do."""
    run, taking_part = folder / "run.npy", folder / "taking-part.npy"
    high, low = np.random.default_rng(0).integers(0, 1 << 63, (2, entries), dtype=np.uint64)
    write_run(run, high, low, np.arange(entries, dtype=np.uint32))
    np.save(taking_part, np.ones(entries, dtype=bool))
    (job,) = matches([run], [0], taking_part, folder / "matched")
    job.folder.mkdir(exist_ok=True)
    return lambda: match(job)


def _opening(shards: int, folder: Path) -> Callable[[], object]:
    names = np.random.default_rng(0).integers(0, 1 << 63, shards, dtype=np.uint64)
    paths = [folder / f"run-{shard}.npy" for shard in range(shards)]
    for shard, path in enumerate(paths):
        write_run(path, *2 * [names[shard : shard + 1]], np.zeros(1, dtype=np.uint32))
    np.save(folder / "taking-part.npy", np.ones(shards, dtype=bool))
    (job,) = matches(paths, list(range(shards)), folder / "taking-part.npy", folder / "matched")
    job.folder.mkdir(exist_ok=True)
    return lambda: match(job)


def _slope(work: Callable[[int], Callable[[], object]], sizes: tuple[int, int]) -> float:
    """The bytes by which the peak grows with each of what `work` is given the number of."""
    peaks = []
    for size in sizes:
        call = work(size)
        tracemalloc.start()
        call()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])


def print_memory(held: Held) -> None:
    """Print what is held, whatever the number of the documents."""
    print(f"memory of the process that decides, for decontamination: {held.merging * AT_A_TIME / 1e9:.2f} GB")
    print(
        f"memory of a worker that matches a range: {held.matching * RANGE_BYTES / 1e9:.2f} GB,"
        f" and {held.opening:.0f} bytes for each shard"
    )
