"""Artifacts are copied beside the log at once: outputs are replaced by later runs, and temporary folders vanish."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.tracking.events import EventLog


def folder_of(log: Path) -> Path:
    """Where the artifacts of a log are."""
    return log.with_suffix(".artifacts")


def keep(log: EventLog, path: Path) -> None:
    """Copy a file, or every file of a directory, and note it in the log."""
    target = folder_of(log.path) / path.name
    target.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, target)
    log.append("artifact", name=path.name)


def keep_text(log: EventLog, name: str, text: str) -> None:
    """Write a text as an artifact, and note it in the log."""
    target = folder_of(log.path) / name
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    log.append("artifact", name=name)
