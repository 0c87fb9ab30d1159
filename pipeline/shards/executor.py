"""Run one pure function over many shards.

A job is a picklable value that holds all its shard needs; the function lives at the top of an importable
module (never `__main__`) and writes files of its own. An executor maps the function over the jobs on some
machines: `local` does it with spawned processes here; one for Ray or Slurm is another function of its form.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Protocol

from pipeline.progress import Progress
from pipeline.shards.kept import J, Job, Kept, R, run_and_keep


class Executor(Protocol):
    """Calls `function` on every job and yields the results in the order of the jobs.

    `workers` calls run at a time; 0 stands for one per core.
    """

    def __call__(self, function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Generator[R, None, None]: ...


def local(function: Callable[[J], R], jobs: Sequence[J], workers: int) -> Generator[R, None, None]:
    """Run the jobs in spawned processes on this machine; one worker, or one job, runs in this process.

    The workers end when the caller does, however it does: they hold the reading end of a pipe whose writing
    end only this process has.
    """
    workers = min(workers or _cores(), len(jobs))
    if workers <= 1:
        for job in jobs:
            with _shard_named(job):
                result = function(job)
            yield result
        return
    context = get_context("spawn")
    lifeline, end_workers = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(lifeline,))
    try:
        futures = [pool.submit(function, job) for job in jobs]
        for job, future in zip(jobs, futures, strict=True):
            with _shard_named(job):
                result = future.result()
            yield result
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


def run_shards(
    function: Callable[[J], R],
    jobs: Sequence[J],
    *,
    title: str,
    workers: int = 0,
    kept: Kept | None = None,
    executor: Executor = local,
) -> list[R]:
    """Call `function` on every job and return the results in the order of the jobs.

    Args:
        function: pure, at the top of an importable module.
        jobs: one per shard.
        title: what the progress is called.
        workers: how many processes; 0 for one per core.
        kept: where results outlive a stop: only the jobs without one run.
        executor: where to run.

    Raises:
        Exception: whatever `function` raised, for the first shard that failed, with a note naming the shard.
        RuntimeError: a worker process died.
    """
    results = kept.load(jobs) if kept else {}
    todo = [index for index in range(len(jobs)) if index not in results]
    work = partial(run_and_keep, function, kept.directory) if kept else function
    with (
        closing(executor(work, [jobs[index] for index in todo], workers)) as stream,
        Progress(title, len(jobs), "shard", done=len(results)) as bar,
    ):
        for index, result in zip(todo, stream, strict=True):
            results[index] = result
            bar.advance()
            if kept:
                kept.progress(len(results), len(jobs), "shard")
    return [results[index] for index in range(len(jobs))]


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
