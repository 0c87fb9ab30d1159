"""Seals: the sha256 of each file of a finished directory, so that damage is noticed before it is used."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline.hashing import file_sha256, walk

SEAL = "sha256.json"


class DamagedError(Exception):
    """A directory is not what was sealed; the message names the file."""


def seal(directory: Path) -> None:
    """Close a directory: on disk for good, its hashes last."""
    draft = directory / f".{SEAL}.tmp"
    draft.unlink(missing_ok=True)  # of a run that was killed here
    files = sorted(file for file in walk(directory) if file.name != SEAL)
    for file in files:
        _to_disk(file)
    sums = {file.relative_to(directory).as_posix(): file_sha256(file) for file in files}
    draft.write_text(json.dumps(sums, indent=2, sort_keys=True) + "\n")
    _to_disk(draft)
    os.replace(draft, directory / SEAL)
    _to_disk(directory)


def check_seal(directory: Path) -> None:
    """Compare every file with the seal.

    Raises:
        DamagedError: the seal, or a file, is missing, cut short or changed.
    """
    try:
        sums = json.loads((directory / SEAL).read_text())
        found = {file.relative_to(directory).as_posix() for file in walk(directory) if file.name != SEAL}
        if found != set(sums):
            raise DamagedError(
                f"{directory}: {', '.join(sorted(found ^ set(sums)))} is missing or does not belong there"
            )
        for name, expected in sums.items():
            if file_sha256(directory / name) != expected:
                raise DamagedError(f"{directory / name} is cut short or changed (its sha256 is another)")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DamagedError(f"{directory}: a file is missing or unreadable ({error})") from None


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
