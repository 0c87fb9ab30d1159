"""Threads that read shards before somebody asks for them: Polars leaves the interpreter free meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from pipeline.shards.executors.cores import cores

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_MOST = 4
"""So that no machine holds more shards in memory. Two cores need as many: BPE training takes two or three at a time."""


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """The results in order; `AT_MOST` are made, by a thread for each core, or wait to be used, at a time.

    Raises:
        Exception: whatever `function` raised, for the first item that failed.
    """
    with ThreadPoolExecutor(min(cores(), AT_MOST)) as threads:
        under_way: deque[Future[Result]] = deque()
        for item in items:
            if len(under_way) == AT_MOST:
                yield under_way.popleft().result()
            under_way.append(threads.submit(function, item))
        while under_way:
            yield under_way.popleft().result()
