"""The first in the order of their hashes, found in passes, against a sort of all of them."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from pipeline.preprocess.ledger import MOST_SOURCES
from pipeline.preprocess.lowest import Lowest
from tests.pipeline.memory import peak_of

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


def parts_of(*columns: np.ndarray, part: int) -> Callable[[], Iterator[tuple[np.ndarray, ...]]]:
    return lambda: (tuple(column[at : at + part] for column in columns) for at in range(0, len(columns[0]), part))


@pytest.mark.parametrize("kind", HASHES)
def test_those_that_count_are_the_first_of_the_sorted(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    for case in range(60):
        size = int(rng.integers(1, 300))
        hashes = HASHES[kind](rng, size)
        weights = np.ones(size, dtype=np.int64) if case % 2 else rng.integers(0, 500, size)
        total = int(weights.sum())
        everything = parts_of(np.zeros(size, dtype=np.int64), hashes, weights, part=int(rng.choice([1, 7, 1000])))
        for wanted in (0, 1, total / 3, int(rng.integers(total + 1)), total, total + 1):
            lowest = Lowest(everything, np.array([wanted]))
            taken = np.concatenate([lowest.take(*some) for some in everything()])
            assert np.array_equal(taken, first_by_sorting(hashes, weights, wanted))


@pytest.mark.parametrize("strata", [2, 7, 100, 20_000])
@pytest.mark.parametrize("kind", HASHES)
def test_each_stratum_is_as_if_it_were_alone(kind: str, strata: int) -> None:
    rng = np.random.default_rng(strata)
    for _ in range(5):
        size = int(rng.integers(1, 3000))
        numbers, hashes = rng.integers(0, strata, size), HASHES[kind](rng, size)
        weights = rng.integers(0, 500, size)
        wanted = np.bincount(numbers, weights, strata) * rng.choice([0, 0.3, rng.random(), 1, 2], strata)
        everything = parts_of(numbers, hashes, weights, part=int(rng.choice([7, 10_000])))
        lowest = Lowest(everything, wanted)
        taken = np.concatenate([lowest.take(*some) for some in everything()])
        for number in np.unique(numbers).tolist():
            own = numbers == number
            assert np.array_equal(taken[own], first_by_sorting(hashes[own], weights[own], wanted[number]))


@pytest.mark.parametrize(("strata", "passes"), [(1, 4), (4, 4), (5, 5), (400, 8), (4000, 11), (3 * MOST_SOURCES, 16)])
def test_passes_and_memory_are_bounded(strata: int, passes: int) -> None:
    seen = []

    def everything() -> Iterator[tuple[np.ndarray, ...]]:
        seen.append(1)
        yield tuple(np.zeros(1, dtype=dtype) for dtype in (np.int64, np.uint64, np.int64))

    wanted = np.ones(strata)
    assert peak_of(lambda: Lowest(everything, wanted)) < 64e6
    assert len(seen) == passes


def test_of_none_none_counts() -> None:
    nothing = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))
    assert Lowest(lambda: [nothing], np.array([3])).take(*nothing).shape == (0,)
    assert Lowest(lambda: [nothing], np.array([])).take(*nothing).shape == (0,)
