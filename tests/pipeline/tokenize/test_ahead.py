"""Results in order, whatever the threads do, and no more at a time than memory shall hold."""

from __future__ import annotations

import threading

import pytest

from pipeline.tokenize import ahead
from pipeline.tokenize.ahead import map_ahead


@pytest.fixture(autouse=True)
def three_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "cores", lambda: 3)


def test_results_come_in_order_though_the_first_ends_last() -> None:
    later = threading.Event()

    def square(value: int) -> int:
        if value == 0:
            assert later.wait(60)
        elif value == 2:
            later.set()
        return value**2

    assert list(map_ahead(square, range(7))) == [value**2 for value in range(7)]
    assert list(map_ahead(square, [])) == []


def test_no_more_are_begun_than_memory_shall_hold_beside_what_is_used() -> None:
    begun = []
    results = map_ahead(begun.append, range(20))
    for used in range(1, 5):
        next(results)
        assert len(begun) <= used + ahead.AT_MOST
    results.close()
    assert len(begun) <= 4 + ahead.AT_MOST


def test_the_first_item_that_fails_is_the_error() -> None:
    def fail(value: int) -> int:
        if value >= 4:
            raise ValueError(f"{value} is too much")
        return value

    results = map_ahead(fail, range(9))
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="4 is too much"):
        next(results)
