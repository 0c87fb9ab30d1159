"""Results of shards that outlive a stop: what was done is not done again."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.hashing import file_sha256, text_sha256, walk
from pipeline.shards.executors import J, Job, R
from pipeline.work.seal import DamagedError


@dataclass(frozen=True)
class Kept:
    """A directory with the result of each job that is done, and a way to say how many are."""

    directory: Path
    progress: Callable[[int, int, str], None]
    """Called with done, total and what is counted."""

    def load(self, jobs: Sequence[J]) -> dict[int, Any]:
        """The results that are there, by the index of their job; a damaged one is named and left out."""
        self.directory.mkdir(parents=True, exist_ok=True)
        found = {}
        for index, job in enumerate(jobs):
            path = _path(self.directory, job)
            if path.exists():
                try:
                    found[index] = _load(path, job)
                except DamagedError as damage:
                    print(f"warning: {job.name}: {damage}; done again", file=sys.stderr)
        if found:
            print(f"{len(found)} of {len(jobs)} shards are done already", flush=True)
        return found


def run_and_keep(function: Callable[[J], R], directory: Path, job: J) -> R:
    """Call `function` on the job, in the process of the worker, and keep what it returns.

    The job's folder is made, empty, before; its files are recorded by hash after.
    """
    if job.folder:
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir(parents=True)
    result = function(job)
    payload = pickle.dumps((result, _sums(job)))
    draft = _path(directory, job).with_suffix(".tmp")
    draft.write_bytes(_seal(payload) + payload)
    os.replace(draft, _path(directory, job))
    return result


def _path(directory: Path, job: Job) -> Path:
    return directory / text_sha256(job.name)[:16]


def _load(path: Path, job: Job) -> Any:
    content = path.read_bytes()
    seal, payload = content[:64], content[64:]
    if seal != _seal(payload):
        raise DamagedError(f"{path} is cut short or changed")
    result, sums = pickle.loads(payload)
    if sums != _sums(job):
        raise DamagedError(f"a file in {job.folder} is missing, cut short or changed")
    return result


def _seal(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode()


def _sums(job: Job) -> dict[str, str]:
    return {str(file): file_sha256(file) for file in sorted(walk(job.folder))} if job.folder else {}
