"""Processes of this machine that jobs are handed to, one after another.

On Linux they are forks of a server, a spawned process that has imported what they need and done nothing else: each
has it at once, and the import of Polars and NumPy is paid for once. Elsewhere each is spawned, for not everything that
may have been imported there survives a fork.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from importlib import import_module
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.queues import SimpleQueue

from pipeline.shards.executors.base import J, R
from pipeline.shards.executors.cores import shares, stay_on
from pipeline.shards.executors.flow import collect

ONE_THREAD = {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""The caller has a process for each core."""

METHOD = "forkserver" if sys.platform == "linux" else "spawn"
NURSERY = "pipeline.shards.executors.nursery"


class Processes:
    """At most `count`, each started when it is first needed, or by `start`; what it has imported stays.

    They end when the caller does, however it does: they hold the reading end of a pipe whose writing end only this
    process has.

    As many as there are cores have one each. What Polars does it does in a thread beside the one that waits for it; on
    another core, which another worker needs, the two would leave their own idle at each turn, by 4% of all.
    """

    def __init__(self, count: int) -> None:
        context = get_context(METHOD)
        if METHOD == "forkserver":
            forkserver.set_forkserver_preload([NURSERY])
        self._lifeline, self._end_all = context.Pipe(duplex=False)
        cores: SimpleQueue[set[int]] = context.SimpleQueue()
        for share in (known := shares(count)):
            cores.put(share)
        initargs = (self._lifeline, cores if known else None, dict(os.environ))
        self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=initargs)

    def start(self, count: int, module: str) -> None:
        """Have the server, or so many processes, start and import the module; does not wait for that.

        There is one server for all, which lasts as long as this process, and it imports what it is first told to.
        """
        if METHOD == "forkserver":
            forkserver.set_forkserver_preload([NURSERY, module])
            forkserver.ensure_running()
            return
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


def _start(lifeline: Connection, cores: SimpleQueue[set[int]] | None, environment: dict[str, str]) -> None:
    """Prepare a process, before anything of the job is imported or, by a fork, used."""
    if cores:
        stay_on(cores.get())
    os.environ |= environment | ONE_THREAD  # a server's environment is that of when it was started
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's, who then closes the lifeline
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _import(module: str) -> None:
    import_module(module)


def _end_with(lifeline: Connection) -> None:
    lifeline.poll(None)  # nothing is ever sent: this returns when the other end is closed
    os._exit(1)
