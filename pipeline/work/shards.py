"""The results of single shards in work/shards/, which work folders share: what is there, and which may go.

Policy: one stays for 14 days from when it was made or last used.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.work.pruning import list_work

SHARDS = "shards"
UNUSED_STAYS = 14 * 24 * 3600


@dataclass(frozen=True)
class ShardResults:
    """Some results of shards of one stage."""

    stage: str
    path: Path
    count: int
    bytes: int
    """On disk, without what another name (an output, a work folder) holds anyway."""
    used: float
    """When one of them was last made or used, in seconds since the epoch."""


def list_shards(root: Path) -> list[ShardResults]:
    """What is there, by stage."""
    folders = sorted(folder for folder in (root / SHARDS).glob("*") if folder.is_dir())
    return [found for folder in folders if (found := _sum(folder, list(folder.iterdir()))).count]


def prune_shards(root: Path, *, everything: bool = False) -> list[ShardResults]:
    """Remove what the policy says, or `everything` but of stages that a process works on; returns what went."""
    running = {state.stage for state in list_work(root) if state.state == "running"} if everything else set()
    now = time.time()
    gone = []
    for state in list_shards(root):
        if state.stage in running:
            continue
        old = [entry for entry in state.path.iterdir() if everything or now - _used(entry) > UNUSED_STAYS]
        if old:
            gone.append(_sum(state.path, old))
        for entry in old:
            _remove(entry)
    return gone


def forget_shards(folder: Path, since: float) -> None:
    """Remove what was made since a moment: of something that has changed meanwhile, perhaps."""
    for entry in folder.glob("[!.]*"):
        with suppress(FileNotFoundError):
            if (entry / "result").stat().st_mtime >= since - 1:  # a file system's clock may be a little behind
                _remove(entry)


def _sum(folder: Path, entries: list[Path]) -> ShardResults:
    files = [status for entry in entries for status in _files(entry)]
    return ShardResults(
        stage=folder.name,
        path=folder,
        count=len(entries),
        bytes=sum(file.st_size for file in files if file.st_nlink == 1),
        used=max(map(_used, entries), default=0.0),
    )


def _used(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:  # just removed, or renamed
        return time.time()


def _files(entry: Path) -> Iterator[os.stat_result]:
    for below, _, names in os.walk(entry):
        for name in names:
            with suppress(FileNotFoundError):
                yield os.stat(os.path.join(below, name))


def _remove(entry: Path) -> None:
    """Out of sight first, by a rename: half an entry is never found."""
    away = entry.with_name(f".removing-{entry.name}-{os.getpid()}")
    with suppress(FileNotFoundError):
        entry.rename(away)
        shutil.rmtree(away, ignore_errors=True)
