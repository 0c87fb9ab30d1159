"""The first in the order of their hashes, found in passes, against a sort of all of them."""

from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.preprocess.lowest import Lowest

HASHES = {
    "spread": lambda rng, size: rng.integers(0, 1 << 64, size, dtype=np.uint64),
    "few": lambda rng, size: rng.integers(0, 4, size, dtype=np.uint64),
    "ends": lambda rng, size: rng.choice(np.array([0, 1, (1 << 64) - 2, (1 << 64) - 1], dtype=np.uint64), size),
    "low bits": lambda rng, size: np.uint64(0xABCD << 48) + rng.integers(0, 1 << 18, size, dtype=np.uint64),
    "middle bits": lambda rng, size: rng.integers(0, 300, size, dtype=np.uint64) << np.uint64(24),
}


def first_by_sorting(hashes: np.ndarray, weights: np.ndarray, wanted: float) -> np.ndarray:
    """The definition."""
    order = np.argsort(hashes, kind="stable")
    so_far = np.cumsum(weights[order])
    is_taken = np.zeros(len(hashes), dtype=bool)
    is_taken[order[so_far - weights[order] / 2 < wanted]] = True
    return is_taken


@pytest.mark.parametrize("kind", HASHES)
def test_those_that_count_are_the_first_of_the_sorted(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    for case in range(60):
        size = int(rng.integers(1, 300))
        hashes = HASHES[kind](rng, size)
        weights = np.ones(size, dtype=np.int64) if case % 2 else rng.integers(0, 500, size)
        part = int(rng.choice([1, 7, 1000]))

        def everything(hashes=hashes, weights=weights, part=part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return ((hashes[at : at + part], weights[at : at + part]) for at in range(0, len(hashes), part))

        total = int(weights.sum())
        for wanted in (0, 1, total / 3, int(rng.integers(total + 1)), total, total + 1):
            lowest = Lowest(everything, wanted)
            taken = np.concatenate([lowest.take(*some) for some in everything()])
            assert np.array_equal(taken, first_by_sorting(hashes, weights, wanted))


def test_of_none_none_counts() -> None:
    assert Lowest(lambda: [], 3).take(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)).shape == (0,)
