"""Run shards as a Slurm job array.

The tasks of the array work through the jobs of a directory on a file system that all machines share, each taking
the next one that nobody has taken (slurm_task.py):

    function          pickled
    jobs/<index>      pickled
    taken/<index>     made by the task that works on the job
    results/<index>   pickled: whether it went well, and what the function returned or raised
    heartbeat         touched by whoever waits here: when that ends, so do the tasks
    logs/<task>.txt   what a task printed
"""

from __future__ import annotations

import os
import pickle
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipeline.shards.executors.base import J, R
from pipeline.work import remove, work_root

DIRECTORIES = "slurm"
"""In work/; what a killed run left there goes after a day."""
DAY = 24 * 3600
MOST_TASKS = 1000
"""Slurm's own bound, MaxArraySize, is 1001 where nobody has set it, and counts from 0."""
ARRAYS_IN_VAIN = 3
"""So many arrays in a row that bring no result are enough."""
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_BETWEEN_QUESTIONS = 5.0
"""To Slurm, which has others to answer."""
LINES_OF_LOG = 20


@dataclass(frozen=True)
class Slurm:
    """A job array, submitted from here by `sbatch`; what it leaves undone (lost or preempted tasks) goes into another.

    This directory and work/ must be on a file system that all machines share, under the same path.
    """

    here: ClassVar = 0

    workers: int = 0
    """Tasks of the array; 0 for one per shard, `MOST_TASKS` at most."""
    options: str = ""
    """More options of `sbatch`, as a shell takes them."""

    def start(self, jobs: int, module: str) -> None:
        """See `Executor`: there is nothing to start here."""

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """See `Executor`; of several jobs that fail, the first that is seen."""
        if not jobs:
            return
        if shutil.which("sbatch") is None:
            raise ValueError("launch.executor is slurm, but there is no sbatch here: start it where Slurm is installed")
        with _directory(function, jobs) as directory:
            left, in_vain = set(range(len(jobs))), 0
            while left:
                in_vain += 1
                for index, (well, value) in self._array(directory, sorted(left)):
                    if not well:
                        value.add_note(f"in shard {jobs[index].name}")
                        raise value
                    left.remove(index)
                    in_vain = 0
                    yield index, value
                if in_vain == ARRAYS_IN_VAIN:
                    raise RuntimeError(_died(directory, jobs, left))

    def _array(self, directory: Path, indices: list[int]) -> Generator[tuple[int, tuple[bool, Any]], None, None]:
        """Let one array work on these jobs, and yield what comes of them until it has ended."""
        for index in indices:
            (directory / "taken" / str(index)).unlink(missing_ok=True)
        with _submitted(directory, min(len(indices), self.workers or MOST_TASKS), self.options) as array:
            awaited, asked, ended = set(indices), time.monotonic(), False
            while awaited:
                (directory / "heartbeat").touch()
                found = sorted(awaited & {int(name) for name in os.listdir(directory / "results") if name.isdigit()})
                for index in found:
                    yield index, pickle.loads((directory / "results" / str(index)).read_bytes())
                awaited -= set(found)
                if ended:
                    return
                if not found and time.monotonic() - asked > SECONDS_BETWEEN_QUESTIONS:
                    ended, asked = not _is_known(array), time.monotonic()
                elif not found:
                    time.sleep(SECONDS_BETWEEN_LOOKS)


@contextmanager
def _directory(function: Callable[[J], R], jobs: Sequence[J]) -> Iterator[Path]:
    root = work_root().resolve() / DIRECTORIES
    root.mkdir(parents=True, exist_ok=True)
    for other in root.iterdir():
        heartbeat = other / "heartbeat"
        if heartbeat.exists() and time.time() - heartbeat.stat().st_mtime > DAY:
            remove(other)
    directory = Path(tempfile.mkdtemp(dir=root))
    try:
        (directory / "heartbeat").touch()
        for name in ("jobs", "taken", "results", "logs"):
            (directory / name).mkdir()
        (directory / "function").write_bytes(pickle.dumps(function))
        for index, job in enumerate(jobs):
            (directory / "jobs" / str(index)).write_bytes(pickle.dumps(job))
        yield directory
    finally:
        remove(directory)


@contextmanager
def _submitted(directory: Path, tasks: int, options: str) -> Iterator[str]:
    """Submit an array and yield its number; it is cancelled at the end."""
    task = [sys.executable, "-m", "pipeline.shards.executors.slurm_task", str(directory)]
    submit = ["sbatch", "--parsable", "--job-name=shards", f"--array=0-{tasks - 1}", f"--chdir={Path.cwd()}"]
    submit += [f"--output={directory}/logs/%a.txt", "--open-mode=append", *shlex.split(options)]
    script = f"#!/bin/sh\nPOLARS_MAX_THREADS=1 exec {shlex.join(task)}\n"
    done = subprocess.run(submit, input=script, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"sbatch takes no job array ({shlex.join(submit)}): {done.stderr.strip()}")
    array = done.stdout.strip().split(";")[0]
    print(f"Slurm has job array {array} of {tasks} tasks", flush=True)
    try:
        yield array
    finally:
        subprocess.run(["scancel", "--quiet", array], capture_output=True)


def _is_known(array: str) -> bool:
    """Whether any of its tasks waits or runs; also if Slurm does not answer."""
    done = subprocess.run(["squeue", "--noheader", "--jobs", array], capture_output=True, text=True)
    return "Invalid job id" not in done.stderr if done.returncode else bool(done.stdout.strip())


def _died(directory: Path, jobs: Sequence[J], left: set[int]) -> str:
    at_work = [index for index in sorted(left) if (directory / "taken" / str(index)).exists()]
    names = ", ".join(jobs[index].name for index in at_work) or "none: they did not come so far"
    logs = sorted((directory / "logs").iterdir(), key=lambda log: log.stat().st_mtime)
    told = "\n".join(logs[-1].read_text(errors="replace").splitlines()[-LINES_OF_LOG:]) if logs else ""
    return (
        f"the tasks of {ARRAYS_IN_VAIN} Slurm job arrays in a row ended without a result (shards at work: {names}); "
        "for more memory or time see launch.slurm_options, for smaller shards ingest.shard_mb. "
        f"The last words of one:\n{told}"
    )
