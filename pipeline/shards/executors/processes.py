"""Spawned processes of this machine that jobs are handed to, one after another."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue

from pipeline.shards.executors.base import J, R
from pipeline.shards.executors.cores import a_core_each, stay_on
from pipeline.shards.executors.flow import collect


class Processes:
    """At most `count`, each started when it is first needed, or by `start`; what it has imported stays.

    They end when the caller does, however it does: they hold the reading end of a pipe whose writing end only this
    process has.

    As many as there are cores have one each. What Polars does it does in a thread beside the one that waits for it; on
    another core, which another worker needs, the two would leave their own idle at each turn, by 4% of all.
    """

    def __init__(self, count: int) -> None:
        context = get_context("spawn")
        self._lifeline, self._end_all = context.Pipe(duplex=False)
        free_cores: SimpleQueue[int] = context.SimpleQueue()
        for core in (own_cores := a_core_each(count)):
            free_cores.put(core)
        initargs = (self._lifeline, free_cores if own_cores else None)
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=initargs)

    def start(self, count: int, module: str) -> None:
        """Start so many, which import the module; does not wait for them."""
        for _ in range(count):
            self._pool.submit(_import, module)

    def run(
        self, function: Callable[[J], R], jobs: Mapping[int, J], *, at_once: int
    ) -> Generator[tuple[int, R], None, None]:
        """See `collect`.

        Args:
            at_once: how many jobs are handed out and not yet done.

        Raises:
            BrokenProcessPool: a process died, and with it all others.
        """
        yield from collect(
            jobs,
            room=lambda: at_once,
            start=lambda job: self._pool.submit(function, job),
            wait=lambda futures: wait(futures, return_when=FIRST_COMPLETED).done,
            result=Future.result,
        )

    def end(self) -> None:
        """End them at once, whatever they do."""
        self._end_all.close()
        self._pool.shutdown(cancel_futures=True)
        self._lifeline.close()


def _start(lifeline: Connection, free_cores: SimpleQueue[int] | None) -> None:
    """Prepare a spawned process, before anything of the job is imported."""
    if free_cores:
        stay_on(free_cores.get())
    os.environ |= {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # the caller has a process for each core
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who then closes the lifeline
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _import(module: str) -> None:
    import_module(module)


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)
