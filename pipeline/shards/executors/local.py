"""Run shards in processes of this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from pipeline.shards.executors.base import J, R
from pipeline.shards.executors.flow import collect


@dataclass(frozen=True)
class Local:
    """Spawned processes on this machine; one worker, or one job, runs in this process.

    The workers end when the caller does, however it does: they hold the reading end of a pipe whose writing
    end only this process has.
    """

    workers: int = 0
    """How many processes; 0 for one per core."""

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`. The shards that a worker died over are done again one at a time, once."""
        workers = min(self.workers or cores(), len(jobs))
        if workers <= 1:
            yield from _here(function, jobs)
            return
        left = dict(enumerate(jobs))

        def spread(indices: Iterable[int], workers: int) -> Generator[tuple[int, R], None, None]:
            for index, result in _in_pool(function, {index: left[index] for index in indices}, workers):
                del left[index]
                yield index, result

        while left:
            try:
                yield from spread(list(left), workers)
            except BrokenProcessPool:
                suspects = list(left)[: _room(workers)]  # the pool does not say which one it was
                print("warning: a worker process died; going on with one shard at a time", file=sys.stderr)
                for index in suspects:
                    name = left[index].name
                    try:
                        yield from spread([index], 1)
                    except BrokenProcessPool:
                        raise RuntimeError(
                            f"shard {name}: the process that works on it died, also with no other beside it, most "
                            "likely for lack of memory: make the shards smaller (ingest.shard_mb)"
                        ) from None


def _here(function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
    for index, job in enumerate(jobs):
        try:
            result = function(job)
        except Exception as error:
            error.add_note(f"in shard {job.name}")
            raise
        yield index, result


def _in_pool(function: Callable[[J], R], jobs: Mapping[int, J], workers: int) -> Generator[tuple[int, R], None, None]:
    context = get_context("spawn")
    lifeline, end_workers = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(lifeline,))
    try:
        yield from collect(
            jobs,
            room=lambda: _room(workers),
            start=lambda job: pool.submit(function, job),
            wait=lambda futures: wait(futures, return_when=FIRST_COMPLETED).done,
            result=Future.result,
        )
        pool.shutdown()
    finally:
        end_workers.close()
        pool.shutdown(cancel_futures=True)
        lifeline.close()


def _room(workers: int) -> int:
    return workers + 1  # one more, for whoever is ready first


def _start_worker(lifeline: Connection) -> None:
    """Prepare a spawned process, before anything of the job is imported."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who then closes the lifeline
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
