"""The order of rows: permutations, the same for any number of processes and from any step on."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest

from pipeline.training.order import batch_of_step, micro_batches, permuted


def epoch_order(size: int, seed: int = 0, epoch: int = 0) -> list[int]:
    return permuted(np.arange(size), size, seed, epoch).tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 10, 255, 256, 257, 1000, 1024, 1025, 70_000])
def test_each_row_once_in_an_order_by_seed_and_epoch(size: int) -> None:
    orders = [epoch_order(size, seed, epoch) for seed in range(3) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(size))
    assert size < 10 or len(set(map(tuple, orders))) == 9
    places = np.random.default_rng(0).integers(0, size, 50)
    assert permuted(places, size, 0, 1).tolist() == [orders[1][place] for place in places]


def test_places_of_a_set_too_large_to_hold() -> None:
    size = 10**15 + 37
    places = np.concatenate([np.arange(5000), size - 1 - np.arange(5000)])
    found = permuted(places, size, seed=3, epoch=1)
    assert len(set(found.tolist())) == len(places)
    assert found.min() >= 0
    assert found.max() < size
    assert abs(found.mean() / size - 0.5) < 5 / np.sqrt(12 * len(found))


def test_all_permutations_are_as_likely() -> None:
    """Chi-square with 23 degrees of freedom: above 50 once in a thousand seeds."""
    draws = 1200
    seen = Counter(tuple(epoch_order(4, epoch=epoch)) for epoch in range(draws))
    expected = draws / 24
    assert sum((seen[order] - expected) ** 2 / expected for order in permutations(range(4))) < 50


@pytest.mark.parametrize("size", [100, 1000, 4097])
def test_a_row_is_as_likely_at_every_place_and_beside_every_other(size: int) -> None:
    orders = np.array([epoch_order(size, epoch=epoch) for epoch in range(200)])
    tenths = orders * 10 // size
    for place in (0, 1, size // 2, size - 1):
        counts = np.bincount(tenths[:, place], minlength=10)
        assert ((counts - 20) ** 2 / 20).sum() < 35  # 9 degrees of freedom: above 35 once in 17,000
    neighbours = np.corrcoef(orders[:, :-1].ravel(), orders[:, 1:].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(orders.size) + 2 / size
    epochs = np.corrcoef(orders[:-1].ravel(), orders[1:].ravel())[0, 1]
    assert abs(epochs) < 5 / np.sqrt(orders.size)


def test_epochs_follow_each_other_and_a_batch_may_straddle_some() -> None:
    for rows, batch_size in ((10, 4), (3, 8), (1, 5), (7, 7)):
        stream = np.concatenate([batch_of_step(rows, batch_size, 3, step) for step in range(rows * 4)])
        expected = [row for epoch in range(len(stream) // rows) for row in epoch_order(rows, 3, epoch)]
        assert stream.tolist() == expected


def seen(rows: int, batch_size: int, micro: int, world_size: int, steps: range) -> list[list[int]]:
    """By step, the rows that all ranks see."""
    return [
        [
            row
            for rank in range(world_size)
            for part in micro_batches(batch_of_step(rows, batch_size, 0, step), micro, rank, world_size)
            for row in part.tolist()
        ]
        for step in steps
    ]


def test_a_run_stopped_anywhere_goes_on_with_the_rest_on_any_number_of_processes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows, batch_size, steps = int(rng.integers(1, 200)), int(rng.integers(1, 40)), 12
        micro = int(rng.integers(2, 6))
        whole = seen(rows, batch_size, micro, 1, range(steps))
        assert all(len(batch) == batch_size for batch in whole)
        parts: list[list[int]] = []
        while len(parts) < steps:  # stops, and another number of processes each time
            stop = int(rng.integers(len(parts), steps)) + 1
            parts += seen(rows, batch_size, micro, int(rng.integers(1, batch_size + 1)), range(len(parts), stop))
        assert parts == whole


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_every_process_has_as_many_micro_batches_and_each_has_a_row(size: int) -> None:
    for batch_size in range(1, 60):
        for world_size in range(1, batch_size + 1):
            if size == 1 and batch_size % world_size:
                continue
            shares = [micro_batches(np.arange(batch_size), size, rank, world_size) for rank in range(world_size)]
            largest = -(-batch_size // world_size)
            assert {len(parts) for parts in shares} == {-(-largest // size)}
            assert all(1 <= len(part) <= size for parts in shares for part in parts)
            assert {sum(map(len, parts)) for parts in shares} <= {largest, batch_size // world_size}


@pytest.mark.parametrize(("batch_size", "size", "world_size"), [(6, 1, 4), (3, 2, 4)])
def test_a_batch_of_which_a_process_would_have_nothing(batch_size: int, size: int, world_size: int) -> None:
    message = f"batch_size is {batch_size}, and micro_batch_size {size}: {world_size} processes cannot all have a row"
    with pytest.raises(ValueError, match=message):
        micro_batches(np.arange(batch_size), size, 0, world_size)
