"""Which rows each optimizer step sees: a function of seed and step alone.

So there is no state to keep for a stop, nothing grows with the rows, and the batches are the same however many
processes share them.
"""

from __future__ import annotations

import math

import numpy as np

from pipeline.splitmix import finalize

ROUNDS = 8
LEAST_BASE = 4
"""So that the permutations of a few places, of which a network on so few has not all, are cut out of longer ones."""


def batch_of_step(rows: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """The rows (batch_size,) int64 of one step: each epoch is a new permutation, and a batch may straddle two."""
    epochs, places = np.divmod(step * batch_size + np.arange(batch_size), rows)
    parts = [permuted(places[epochs == epoch], rows, seed, epoch) for epoch in np.unique(epochs).tolist()]
    return np.concatenate(parts)


def micro_batches(batch: np.ndarray, size: int, rank: int = 0, world_size: int = 1) -> list[np.ndarray]:
    """The share of process `rank` of a batch, at most `size` rows at a time; the shares of all in order are the batch.

    Shares differ by one row at most, and each is cut into as many parts as any other, since processes wait for each
    other at every part. The loss of a step is a mean over the targets of all shares, not the mean of theirs.

    Raises:
        ValueError: a process would have fewer rows than parts: of a batch smaller than `world_size`, or cut into
            single rows that do not come out even.
    """
    parts = -(-len(batch) // (world_size * size))
    if len(batch) // world_size < parts:
        raise ValueError(
            f"batch_size is {len(batch)}, and micro_batch_size {size}: {world_size} processes cannot all have a row at "
            f"every turn; make batch_size a multiple of {world_size}, or take fewer processes or larger micro-batches"
        )
    first, stop = (len(batch) * number // world_size for number in (rank, rank + 1))
    return np.array_split(batch[first:stop], parts)


def permuted(places: np.ndarray, size: int, seed: int, epoch: int) -> np.ndarray:
    """What stands at `places`, from 0 to `size` - 1, of the permutation that `seed` and `epoch` draw; int64.

    A Feistel network (Luby and Rackoff 1988) on the two digits of each place in a base whose square is at least
    `size`; what falls outside goes through it again until it falls inside, which leaves a permutation (Black and
    Rogaway 2002). Takes time and memory by the places asked for, whatever `size` is.
    """
    base = np.uint64(max(LEAST_BASE, math.isqrt(size - 1) + 1))
    keys = np.random.SeedSequence([seed, epoch]).generate_state(ROUNDS, np.uint64)
    found = places.astype(np.uint64)
    outside = np.ones(len(found), dtype=bool)
    while outside.any():
        found[outside] = _feistel(found[outside], base, keys)
        outside = found >= size
    return found.astype(np.int64)


def _feistel(values: np.ndarray, base: np.uint64, keys: np.ndarray) -> np.ndarray:
    """A permutation of the numbers below the square of `base`; one round for each of `keys`."""
    high, low = np.divmod(values, base)
    for key in keys:
        high, low = low, (high + finalize(low ^ key) % base) % base
    return high * base + low
