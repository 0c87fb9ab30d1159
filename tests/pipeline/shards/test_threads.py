"""Threads for what leaves the interpreter free."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.shards.threads import map_threads


@pytest.fixture(params=[1, 3])
def count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many cores there are."""
    count: int = request.param
    monkeypatch.setattr("pipeline.shards.threads.cores", lambda: count)
    return count


def test_results_are_in_order_made_by_a_thread_for_each_core(count: int) -> None:
    threads = set()

    def work(item: int) -> int:
        threads.add(threading.get_ident())
        time.sleep(0.01 * (item == 0))  # the first ends last
        return item * item

    assert map_threads(work, iter(range(40))) == [item * item for item in range(40)]
    assert len(threads) <= count


@pytest.mark.usefixtures("count")
def test_the_first_failure_in_order_is_raised() -> None:
    def work(item: int) -> None:
        if item in (3, 7):
            time.sleep(0.05 * (item == 3))
            raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 3"):
        map_threads(work, range(9))
