"""Hashes of files that were hashed before, so that a big file is read once and not at each call."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from pipeline.hashing import SETTLED_NS


class Memory:
    """md5 by path, for as long as size, time of change and inode stay what they were; kept in one small file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._known = _read(file)
        self._asked: set[str] = set()
        self._changed = False

    def md5(self, path: Path, status: os.stat_result) -> str:
        """The md5 of a file.

        Args:
            status: what `stat` says of it now.
        """
        key, identity = str(path), [status.st_size, status.st_mtime_ns, status.st_ino]
        self._asked.add(key)
        known = self._known.get(key)
        if known and known[1:] == identity:
            return str(known[0])
        with path.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if time.time_ns() - status.st_mtime_ns > SETTLED_NS:
            self._known[key] = [md5, *identity]
            self._changed = True
        return md5

    def save(self) -> None:
        """Write what is new, without the files that are gone."""
        if not self._changed:
            return
        kept = {key: value for key, value in self._known.items() if key in self._asked or os.path.exists(key)}
        note(self._file, json.dumps(kept).encode())


def note(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; a disk that is full or not ours to write to costs time later, and no more."""
    draft = file.with_name(f".{file.name}.tmp-{os.getpid()}")
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, list[str | int]]:
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: value for key, value in known.items() if isinstance(value, list) and len(value) == 4}
