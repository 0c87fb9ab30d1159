"""Results of shards by what they depend on: what was done is not done again, whenever and for whatever it was done.

    work/shards/<stage>/<key>/result    what the function returned, and the hashes of the files; sealed
    work/shards/<stage>/<key>/files/    what it wrote
    work/shards/<stage>/.<key>-.../     what is being made; it gets its name by a rename, when it is whole

The stage finds the files in the `folder` of the job, as further names of those here.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

from pipeline.hashing import file_sha256, walk
from pipeline.shards.executors import J, R
from pipeline.shards.keys import job_key
from pipeline.shards.threads import map_threads
from pipeline.work import DamagedError, WorkFolder, link_tree, remove

SECONDS_TO_APPEAR = 60.0
"""A network file system may take as long to show a machine what another one has written."""


@dataclass(frozen=True)
class Entry(Generic[J]):
    """A job, and the directory that its result is kept in."""

    path: Path
    job: J

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        return self.job.name

    @property
    def folder(self) -> Path | None:
        """Where the stage looks for the files."""
        return self.job.folder


@dataclass(frozen=True)
class Kept:
    """The results that are kept of the jobs of a stage."""

    directory: Path
    code: str
    """The hash of the code that makes them."""
    progress: Callable[[int, int, str], None]
    """Called with done, total and what is counted."""

    @classmethod
    def of(cls, work: WorkFolder) -> Kept:
        """Those of the stage that works there."""
        return cls(work.shards, work.code, work.progress)

    def entries(self, function: Callable[[J], R], jobs: Sequence[J]) -> list[Entry[J]]:
        """For each job where its result is, or will be."""
        keys = map_threads(lambda job: job_key(function, self.code, job), jobs)
        return [Entry(self.directory / key, job) for key, job in zip(keys, jobs, strict=True)]

    def load(self, entries: Sequence[Entry[J]]) -> dict[int, Any]:
        """The results that are there, by index, their files handed over; a damaged one is named and removed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        present = set(os.listdir(self.directory))
        found = {}
        for index, entry in enumerate(entries):
            if entry.path.name in present:
                try:
                    found[index] = _load(entry.path)
                except DamagedError as damage:
                    print(f"warning: {entry.name}: {damage}; done again", file=sys.stderr)
                    remove(entry.path)
                    continue
                os.utime(entry.path)  # for the pruning, which goes by it
                hand_over(entry)
        if found:
            print(f"{len(found)} of {len(entries)} shards are done already", flush=True)
        return found


def run_and_keep(function: Callable[[J], R], entry: Entry[J]) -> R:
    """Call `function` on the job, in the process of the worker, and keep what it returns and writes.

    It writes into a new directory, so that two workers at the same job do not meet: the first to end is kept.
    """
    draft = entry.path.with_name(f".{entry.path.name}-{uuid.uuid4().hex}")
    files = draft / "files"
    files.mkdir(parents=True)
    try:
        result = function(replace(entry.job, folder=files) if entry.job.folder else entry.job)  # type: ignore[type-var]
        payload = pickle.dumps((result, _sums(files)))
        (draft / "result").write_bytes(_seal(payload) + payload)
        try:
            draft.rename(entry.path)
        except OSError:
            if not entry.path.exists():  # else another worker was first
                raise
    finally:
        remove(draft)
    return result


def hand_over(entry: Entry[Any]) -> None:
    """Give the files of an entry that is whole their names in the folder of its job, which holds nothing else.

    Raises:
        ValueError: the entry does not come to be seen here.
    """
    deadline = time.monotonic() + SECONDS_TO_APPEAR
    while not entry.path.exists():
        if time.monotonic() > deadline:
            raise ValueError(
                f"shard {entry.name} is done, but {entry.path} is not to be seen here: this directory must be on a "
                "file system that all machines share, under the same path (docs/executors.md)"
            )
        time.sleep(0.5)
        os.listdir(entry.path.parent)  # makes NFS look
    if entry.folder:
        remove(entry.folder)
        link_tree(entry.path / "files", entry.folder)


def _load(path: Path) -> Any:
    try:
        content = (path / "result").read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{path / 'result'} is missing") from None
    seal, payload = content[:64], content[64:]
    if seal != _seal(payload):
        raise DamagedError(f"{path / 'result'} is cut short or changed")
    result, sums = pickle.loads(payload)
    if sums != _sums(path / "files"):
        raise DamagedError(f"a file in {path / 'files'} is missing, cut short or changed")
    return result


def _seal(payload: bytes) -> bytes:
    return hashlib.sha256(payload).hexdigest().encode()


def _sums(folder: Path) -> dict[str, str]:
    return {file.relative_to(folder).as_posix(): file_sha256(file) for file in sorted(walk(folder))}
