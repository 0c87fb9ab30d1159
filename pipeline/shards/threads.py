"""Threads of this process, for what leaves the interpreter free: hashing, reading and writing files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipeline.shards.executors.cores import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """The results in order, made by a thread for each core.

    Raises:
        Exception: whatever `function` raised, for the first item that failed.
    """
    if cores() == 1:
        return list(map(function, items))
    with ThreadPoolExecutor(cores()) as threads:
        return list(threads.map(function, items))
