"""The loop that executors share: so many tasks at a time, results as they come, the first failure in order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import TypeVar

from pipeline.shards.executors.base import J, R

T = TypeVar("T")


def collect(
    jobs: Mapping[int, J],
    *,
    room: Callable[[], int],
    start: Callable[[J], T],
    wait: Callable[[Collection[T]], Iterable[T]],
    result: Callable[[T], R],
) -> Generator[tuple[int, R], None, None]:
    """Start a task for each job and yield its index and result, as they come.

    After a failure nothing new is started, and only the jobs before the one that failed are waited for: one of
    them may fail too. So the error is the same however the work is spread.

    Args:
        jobs: by index, in order.
        room: how many tasks may be under way.
        start: start a task.
        wait: of tasks under way, those that have ended; called again if none has.
        result: what a task that has ended returned, or raise what it raised.
    """
    todo = iter(jobs.items())
    running: dict[T, int] = {}
    failures: dict[int, Exception] = {}
    while True:
        while not failures and len(running) < room() and (following := next(todo, None)):
            index, job = following
            running[start(job)] = index
        awaited = [task for task, index in running.items() if not failures or index < min(failures)]
        if not awaited:
            break
        for task in wait(awaited):
            index = running.pop(task)
            try:
                value = result(task)
            except Exception as error:
                error.add_note(f"in shard {jobs[index].name}")
                failures[index] = error
                continue
            yield index, value
    if failures:
        raise failures[min(failures)]
