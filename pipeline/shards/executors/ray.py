"""Run shards as tasks of Ray: its core only, with files in and out and next to nothing in its object store."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pipeline.shards.executors.base import J, R
from pipeline.shards.executors.cores import cores
from pipeline.shards.executors.flow import collect

RETRIES = 3
"""Of a task whose process or machine is lost, or that Ray stops because memory runs out."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_TO_ANSWER = 10.0
OBJECT_STORE_BYTES = 200 * 10**6
"""Of a Ray that is started here: for results, which are small."""


@dataclass(frozen=True)
class Ray:
    """Tasks of one core each, on this machine or a cluster.

    This directory must be on a file system that all machines share, under the same path. The connection, or the Ray
    that is started here, lasts until this process ends.
    """

    here: ClassVar = 0

    workers: int = 0
    """Tasks at a time; 0 for one per core: of this machine, or of the cluster as it grows and shrinks."""
    address: str = ""
    """Of a running cluster, host:port, or "auto" for that of this machine; "" starts Ray here."""

    def start(self, jobs: int, module: str) -> None:
        """See `Executor`: there is nothing to start here."""

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`. A task that is lost is started again, `RETRIES` times."""
        if not jobs:
            return
        ray = _connected(self.address, self.workers)
        task = ray.remote(num_cpus=1, max_retries=RETRIES)(_task())
        place = str(Path.cwd())
        search = [place, *filter(None, sys.path)]
        references: dict[Future[R], Any] = {}

        def start(job: J) -> Future[R]:
            reference = task.remote(place, search, pickle.dumps((function, job)))
            future: Future[R] = reference.future()  # waiting for these, Python hears signals as it should
            references[future] = reference
            return future

        def result(future: Future[R]) -> R:
            del references[future]
            return _result(ray, future)

        try:
            yield from collect(
                dict(enumerate(jobs)),
                room=lambda: self.workers or 2 * int(ray.cluster_resources().get("CPU", 1)),
                start=start,
                wait=lambda futures: wait(futures, SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED).done,
                result=result,
            )
        finally:
            for reference in references.values():
                ray.cancel(reference, force=True)


def _task() -> Callable[[str, list[str], bytes], Any]:
    """What a worker runs. It is sent as it is, being no module's: the worker does not find our modules yet."""

    def task(place: str, search: list[str], call: bytes) -> Any:
        import os
        import pickle
        import socket
        import sys

        os.environ["POLARS_MAX_THREADS"] = "1"
        sys.path += [path for path in search if path not in sys.path]
        try:
            os.chdir(place)
        except OSError as error:
            raise ValueError(
                f"{socket.gethostname()}, a machine of the Ray cluster, has no {place} ({error.strerror}): this "
                "directory must be on a file system that all machines share, under the same path (docs/executors.md)"
            ) from None
        function, job = pickle.loads(call)
        return function(job)

    return task


def _result(ray: ModuleType, future: Future[R]) -> R:
    try:
        return future.result()
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise RuntimeError(
            f"Ray lost the process or machine that worked on a shard {RETRIES + 1} times, most likely for lack of "
            f"memory: make the shards smaller (ingest.shard_mb). Ray says: {error}"
        ) from error


def _connected(address: str, workers: int) -> ModuleType:
    """Ray, connected to the cluster or started here, unless it is already."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_task_oom_retries", str(RETRIES))  # without end otherwise
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of tasks that are given up, because another failed
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # or it warns at length of GPUs we do not ask for
    with _our_signals():
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ValueError(
                f"launch.executor is ray, but {error.name} is not installed: pip install '.[cluster]'"
            ) from None
        if ray.is_initialized():
            return ray
        here: dict[str, Any] = {
            "num_cpus": workers or cores(),
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
        }
        try:
            if ":" in address:
                _knock(address)  # Ray would try for minutes, and end the process
            ray.init(address or "local", logging_level=logging.ERROR, **({} if address else here))
        except OSError as error:
            raise ValueError(f"launch.ray_address is {address}: no Ray cluster answers there: {error}") from error
    return ray


def _knock(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()


@contextmanager
def _our_signals() -> Iterator[None]:
    """Keep Ray from handling signals in our place."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
