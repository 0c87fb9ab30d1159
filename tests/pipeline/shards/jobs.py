"""Jobs and functions for the tests of executors, in a module that every worker process finds."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from pipeline.shards import Executor, Local
from pipeline.shards.executors import J, R


@dataclass(frozen=True)
class Number:
    """A job; each call leaves a mark in the directory `marks`, where there is one."""

    value: int
    marks: str = ""
    folder: Path | None = field(default=None)

    @property
    def name(self) -> str:
        return f"number {self.value}"


def numbers(count: int, marks: Path | str = "") -> list[Number]:
    return [Number(value, str(marks)) for value in range(count)]


def calls(marks: Path) -> Counter[int]:
    """How often each job was called."""
    return Counter(int(mark.name.split("-")[0]) for mark in marks.glob("*-*"))


def mark(job: Number) -> None:
    if job.marks:
        Path(job.marks, f"{job.value}-{uuid.uuid4().hex}").touch()


def square(job: Number) -> int:
    mark(job)
    return job.value**2


def square_of_seven(job: Number) -> int:
    """The first of seven jobs ends last."""
    mark(job)
    if job.value == 0:
        wait_until(lambda: len(calls(Path(job.marks))) == 7, "the first job is waited for")
    return job.value**2


def square_slowly(job: Number) -> int:
    mark(job)
    time.sleep(0.3)
    return job.value**2


def fail_from_three(job: Number) -> int:
    mark(job)
    if job.value >= 3:
        time.sleep(0.3 if job.value == 3 else 0)
        raise ValueError(f"{job.value} is too much")
    return job.value


def die_once_at_two(job: Number) -> int:
    """Like a process that the kernel kills for want of memory, the first time."""
    mark(job)
    if job.value == 2 and calls(Path(job.marks))[2] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job.value**2


def die_at_two(job: Number) -> int:
    mark(job)
    if job.value == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return job.value**2


def where(job: Number) -> tuple[int, str | None, str]:
    return os.getpid(), os.environ.get("POLARS_MAX_THREADS"), os.getcwd()


def own_cores(job: Number) -> tuple[int, set[int]]:
    """The process, and what it may run on."""
    time.sleep(0.1)  # or one process does all of them
    return os.getpid(), os.sched_getaffinity(0)


def has_colorsys(job: Number) -> tuple[int, bool]:
    """Whether a module that nothing here imports is there already."""
    return os.getpid(), "colorsys" in sys.modules


def sleep(job: Number) -> None:
    mark(job)
    time.sleep(600)


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def all_below(pid: int) -> list[psutil.Process]:
    """Every process that a process has started, and those that they have."""
    return psutil.Process(pid).children(recursive=True)


def die_always(job: Number) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_twice(job: Number) -> int:
    assert job.folder
    assert not list(job.folder.iterdir())
    (job.folder / "first").write_text(str(job.value))
    time.sleep(0.2)
    (job.folder / "second").write_text(str(job.value))
    return job.value


class Counting:
    """An executor that counts what it runs, by stage and function."""

    here = 2

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    def start(self, jobs: int, module: str) -> None:
        pass

    def run(self, function: Any, jobs: Sequence[J]) -> Generator[tuple[int, Any], None, None]:
        stage = function.args[0].__module__.split(".")[1]
        self.ran[f"{stage}.{function.args[0].__name__}"] += len(jobs)
        return Local(1).run(function, jobs)


@dataclass(frozen=True)
class Striking:
    """An executor whose work is struck once in each step, when a job's files are written but not yet kept.

    The process dies; or, in the steps of Ray that have a node, the job waits there for the end of the node.
    """

    executor: Executor
    marks: Path
    """A directory: a file for each step that was struck, by the name of the function."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """By function: the id of the node that is lost."""

    def start(self, jobs: int, module: str) -> None:
        self.executor.start(jobs, module)

    @property
    def here(self) -> int:
        return self.executor.here

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        is_kept = isinstance(function, partial)  # of run_and_keep, as run_shards makes it
        work = function.args[0] if is_kept else function
        striking = partial(strike, work, self.marks / work.__name__, self.nodes.get(work.__name__, ""), os.getpid())
        yield from self.executor.run(partial(function.func, striking) if is_kept else striking, jobs)


def strike(work: Callable[[J], R], mark: Path, node: str, caller: int, job: J) -> R:
    """Do the work and be struck, but not in the caller's own process or a second time.

    Jobs on other nodes than the one that is lost wait for that: or they might be done before it has any.
    """
    result = work(job)
    if os.getpid() == caller:
        return result
    if node:
        import ray

        if ray.get_runtime_context().get_node_id() != node:
            wait_until(mark.exists, "the node has none of the jobs")
            return result
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return result
    if not node:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    raise AssertionError("the node was not taken away")
