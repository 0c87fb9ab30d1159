"""Jobs and functions for the tests of executors, in a module that every worker process finds."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil


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
