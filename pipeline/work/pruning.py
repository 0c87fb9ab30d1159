"""What is in work/, and which of it may go.

Policy: work that is finished stays for a day (DVC may have died before it took the outputs over), work that was stopped
for 14 days, counted from when it was last touched. Each stage prunes when it ends. What is in use is never touched;
neither are the event log and MLflow's database. Of results of single shards, shards.py has the policy.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.work.lock import holder, unused
from pipeline.work.seal import SEAL

DAY = 24 * 3600
FINISHED_STAYS = DAY
INTERRUPTED_STAYS = 14 * DAY
_REMOVING = ".removing-"


@dataclass(frozen=True)
class WorkState:
    """One folder of work in progress."""

    stage: str
    fingerprint: str
    portable: str
    """The part of the fingerprint that is the same on every machine."""
    path: Path
    state: Literal["running", "interrupted", "finished"]
    pid: int | None
    """Of the process that runs it."""
    done: int | None
    total: int | None
    unit: str
    bytes: int
    """On disk, without what another name (a published output) holds anyway."""
    used: float
    """When it was last written to, in seconds since the epoch."""


def list_work(root: Path) -> list[WorkState]:
    """Every work folder below `root`, by stage and age."""
    states = [_state(about.parent) for about in root.glob("*/*/about.json") if not _is_hidden(about.parent)]
    return sorted(states, key=lambda state: (state.stage, state.used))


def prune(root: Path, *, everything: bool = False) -> list[WorkState]:
    """Remove what the policy says, or `everything` that no process works in; returns what went."""
    for leftover in root.glob(f"*/{_REMOVING}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    now = time.time()
    gone = []
    for state in list_work(root):
        stays = FINISHED_STAYS if state.state == "finished" else INTERRUPTED_STAYS
        if (everything or now - state.used > stays) and _remove(state.path):
            gone.append(state)
    return gone


def _state(folder: Path) -> WorkState:
    about, progress = _read(folder / "about.json"), _read(folder / "progress.json")
    pid = holder(folder)
    finished = (folder / "done" / SEAL).exists()
    files = list(_files(folder))
    return WorkState(
        stage=folder.parent.name,
        fingerprint=folder.name,
        portable=about.get("portable", ""),
        path=folder,
        state="running" if pid is not None else "finished" if finished else "interrupted",
        pid=pid,
        done=progress.get("done"),
        total=progress.get("total"),
        unit=progress.get("unit", ""),
        bytes=sum(file.st_size for file in files if file.st_nlink == 1),
        used=max((file.st_mtime for file in files), default=0.0),
    )


def _files(folder: Path) -> Iterator[os.stat_result]:
    for below, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # the process that works here may have removed it meanwhile
                yield os.stat(os.path.join(below, name))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_hidden(folder: Path) -> bool:
    return folder.name.startswith(".")


def _remove(folder: Path) -> bool:
    """Remove a folder unless a process works in it: out of sight first, by a rename, then file by file."""
    away = folder.with_name(f"{_REMOVING}{folder.name}-{os.getpid()}")
    with unused(folder) as free:
        if not free:
            return False
        folder.rename(away)
    shutil.rmtree(away, ignore_errors=True)
    return True
