"""A task of a Slurm job array: work through the jobs of the directory that slurm.py describes."""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

SECONDS_ALONE = 120.0
"""Without a heartbeat, of whoever waits for the results."""


def main(directory: Path) -> None:
    """Take job after job, until all are taken or nobody waits any more."""
    function = pickle.loads((directory / "function").read_bytes())
    for path in sorted((directory / "jobs").iterdir(), key=lambda path: int(path.name)):
        if _take(directory, path.name):
            if _is_abandoned(directory, path.name):
                return
            _write(directory / "results" / path.name, _outcome(function, path))


def _take(directory: Path, index: str) -> bool:
    try:
        (directory / "taken" / index).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _is_abandoned(directory: Path, index: str) -> bool:
    """Going by times of the file server alone: those of one file now made, and of the heartbeat."""
    now, beat = ((directory / name).stat().st_mtime for name in (f"taken/{index}", "heartbeat"))
    return now - beat > SECONDS_ALONE


def _outcome(function: Any, path: Path) -> bytes:
    try:
        return pickle.dumps((True, function(pickle.loads(path.read_bytes()))))
    except Exception as error:
        trace = traceback.format_exc()
        try:
            error.add_note(trace)
            return pickle.dumps((False, error))
        except Exception:  # it cannot be pickled
            return pickle.dumps((False, RuntimeError(trace)))


def _write(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}-{os.getpid()}")
    draft.write_bytes(content)
    os.replace(draft, path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
