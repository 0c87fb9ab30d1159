"""Run shards in processes of this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection

from pipeline.shards.executors.base import J, Job, R


@dataclass(frozen=True)
class Local:
    """Spawned processes on this machine; one worker, or one job, runs in this process.

    The workers end when the caller does, however it does: they hold the reading end of a pipe whose writing
    end only this process has.
    """

    workers: int = 0
    """How many processes; 0 for one per core."""

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`."""
        workers = min(self.workers or _cores(), len(jobs))
        if workers <= 1:
            for index, job in enumerate(jobs):
                with _shard_named(job):
                    result = function(job)
                yield index, result
            return
        context = get_context("spawn")
        lifeline, end_workers = context.Pipe(duplex=False)
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(lifeline,))
        try:
            futures = [pool.submit(function, job) for job in jobs]
            for index, (job, future) in enumerate(zip(jobs, futures, strict=True)):
                with _shard_named(job):
                    result = future.result()
                yield index, result
            pool.shutdown()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died, most likely for lack of memory: "
                "run again with fewer processes (launch.workers) or smaller shards (ingest.shard_mb)"
            ) from error
        finally:
            end_workers.close()
            pool.shutdown(cancel_futures=True)
            lifeline.close()


@contextmanager
def _shard_named(job: Job) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"in shard {job.name}")
        raise


def _start_worker(lifeline: Connection) -> None:
    """Prepare a spawned process, before anything of the job is imported."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who then closes the lifeline
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
