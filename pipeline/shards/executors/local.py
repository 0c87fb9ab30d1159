"""Run shards in processes of this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import BrokenExecutor
from types import TracebackType
from typing import TYPE_CHECKING

from pipeline.shards.executors.base import J, R
from pipeline.shards.executors.cores import cores

if TYPE_CHECKING:
    from pipeline.shards.executors.processes import Processes


class Local:
    """Spawned processes on this machine; one worker, or one job, runs in this process.

    They start when they are first needed, or with `start`, and serve one run after another, to the end of the block of
    `with`. A run that fails, or is closed before its end, ends them; the next one starts others.
    """

    def __init__(self, workers: int = 0) -> None:
        """`workers`: how many processes; 0 for one per core."""
        self.here = workers or cores()
        self._processes: Processes | None = None

    def __enter__(self) -> Local:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self, jobs: int, module: str) -> None:
        """See `Executor`: start the processes that the run needs, and have them import the module."""
        if self.here > 1 and jobs > 1:
            self._get_processes().start(min(self.here, jobs), module)

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`. The shards that a worker died over are done again one at a time, once."""
        if self.here == 1 or len(jobs) <= 1:
            yield from _here(function, jobs)
            return
        at_once = self.here + 1  # one more, for whoever is ready first
        left = dict(enumerate(jobs))

        def spread(indices: Iterable[int], at_once: int) -> Generator[tuple[int, R], None, None]:
            for index, result in self._in_processes(function, {index: left[index] for index in indices}, at_once):
                del left[index]
                yield index, result

        while left:
            try:
                yield from spread(list(left), at_once)
            except BrokenExecutor:
                suspects = list(left)[:at_once]  # the pool does not say which one it was
                print("warning: a worker process died; going on with one shard at a time", file=sys.stderr)
                for index in suspects:
                    name = left[index].name
                    try:
                        yield from spread([index], 1)
                    except BrokenExecutor:
                        raise RuntimeError(
                            f"shard {name}: the process that works on it died, also with no other beside it, most "
                            "likely for lack of memory: make the shards smaller (ingest.shard_mb)"
                        ) from None

    def _in_processes(
        self, function: Callable[[J], R], jobs: dict[int, J], at_once: int
    ) -> Generator[tuple[int, R], None, None]:
        try:
            yield from self._get_processes().run(function, jobs, at_once=at_once)
        except BaseException:  # GeneratorExit, too: they may be at work on what nobody waits for
            self._end()
            raise

    def _get_processes(self) -> Processes:
        from pipeline.shards.executors.processes import Processes  # takes a while, which few shards do without

        self._processes = self._processes or Processes(self.here)
        return self._processes

    def _end(self) -> None:
        if self._processes:
            self._processes.end()
        self._processes = None


def _here(function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
    for index, job in enumerate(jobs):
        try:
            result = function(job)
        except Exception as error:
            error.add_note(f"in shard {job.name}")
            raise
        yield index, result
