"""Run shards in threads of this process: few of them are done before other processes have started."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.thread import ThreadPoolExecutor

from pipeline.shards.executors.base import J, R
from pipeline.shards.executors.cores import cores
from pipeline.shards.executors.flow import collect

AT_MOST = 4
"""Threads: they have one interpreter among them, and a shard each in memory."""


class Threads:
    """For functions that leave the interpreter free for much of their time, to read, to write and to hash."""

    def __init__(self, count: int = 0) -> None:
        """`count`: how many threads, `AT_MOST` at most; 0 for one per core."""
        self.here = min(count or cores(), AT_MOST)

    def start(self, jobs: int, module: str) -> None:
        """See `Executor`: there is nothing to start."""

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`. A run that fails, or is closed before its end, waits for the jobs that are under way."""
        pool = ThreadPoolExecutor(self.here)
        try:
            yield from collect(
                dict(enumerate(jobs)),
                room=lambda: self.here + 1,  # one more, for whoever is ready first
                start=lambda job: pool.submit(function, job),
                wait=lambda futures: wait(futures, return_when=FIRST_COMPLETED).done,
                result=Future.result,
            )
        finally:
            pool.shutdown(cancel_futures=True)
