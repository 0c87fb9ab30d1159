"""Which n-grams of evaluation records are in common use, and tell nothing: a licence's, a system prompt's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pipeline import mapped
from pipeline.arrays import I64, Bools
from pipeline.preprocess.contamination.lookup import count_ngrams, count_records, read_in_sets, read_owners
from pipeline.shards.manifest import write_manifest

OFTEN = 10
"""n-grams that more training records have are in common use and tell nothing (Brown et al. 2020, appendix C); but not
what one text alone of the user's evaluation sets has, which may be copied often."""

NGRAMS, LOST, MOST = "ngrams.npy", "lost.npy", "most.npy"
"""The n-grams in common use, by their places in the lookup, in order; for each record of the lookup how many of those
that are put down to it are, and how many training records have the one that most have."""


def count_shared(path: Path, evaluation: Path, found: Iterable[Path]) -> None:
    """Write how many training records have each n-gram of the lookup into the new file `path`.

    Args:
        evaluation: what `merge` wrote.
        found: what `scan` wrote of each shard.
    """
    shared = mapped.make(path, "<u4", count_ngrams(evaluation))
    for part in found:
        np.add.at(shared, np.load(part, mmap_mode="r")["ngram"].astype(np.int64), np.uint32(1))


def set_aside(folder: Path, evaluation: Path, shared: Path) -> int:
    """Write which n-grams are in common use into `folder`, which is new, and close it with a manifest; how many.

    Args:
        evaluation: what `merge` wrote.
        shared: what `count_shared` wrote.
    """
    folder.mkdir(parents=True)
    counts = mapped.read(shared)
    lost, most = (mapped.make(folder / name, "<u4", count_records(evaluation)) for name in (LOST, MOST))

    def common() -> Iterator[I64]:
        for block in mapped.blocks(len(counts)):
            ngrams = np.flatnonzero(counts[block] > OFTEN) + block.start
            ngrams = ngrams[read_in_sets(evaluation, ngrams) != 1]
            owners = read_owners(evaluation, ngrams)
            np.add.at(lost, owners, np.uint32(1))
            np.maximum.at(most, owners, counts[ngrams])
            yield ngrams

    found = len(mapped.write(folder / NGRAMS, "<i8", common()))
    write_manifest(folder, {NGRAMS: found, LOST: len(lost), MOST: len(most)}, {})
    return found


def is_common(folder: Path, ngrams: I64) -> Bools:
    """Whether each of these n-grams is in common use."""
    common = mapped.read(folder / NGRAMS)
    if not len(common):
        return np.zeros(len(ngrams), dtype=bool)
    return common[np.minimum(np.searchsorted(common, ngrams), len(common) - 1)] == ngrams


def read_lost(folder: Path, records: I64) -> I64:
    """How many n-grams of each of these records of the lookup are in common use."""
    return mapped.read(folder / LOST)[records].astype(np.int64)
