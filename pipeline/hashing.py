"""What a file or a folder holds, as one sha256."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
COMPILED = "__pycache__"


SETTLED_NS = 2 * 10**9
"""A file younger than this may yet change without a trace in its time, so its hash is not kept."""

_known: dict[tuple[int, ...], str] = {}
"""Hashes of this process, by what `stat` says: a stage asks for those of its inputs several times."""


def file_sha256(path: Path) -> str:
    """Of the bytes of a file."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if identity in _known:
            return _known[identity]
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS:
        _known[identity] = found
    return found


def text_sha256(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def content_sha256(path: Path) -> str:
    """Of a file; of our manifest of a directory, which has the hash of each file; else of all its files by name."""
    if _has_manifest(path):
        path = path / MANIFEST
    if path.is_file():
        return file_sha256(path)
    files = sorted(file for file in walk(path) if COMPILED not in file.parts)
    return text_sha256("".join(f"{file_sha256(file)}  {file.relative_to(path).as_posix()}\n" for file in files))


def _has_manifest(directory: Path) -> bool:
    """Whether there is one that names files with their hashes; somebody else's file of that name may say anything."""
    path = directory / MANIFEST
    if not path.is_file():
        return False
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        return bool(files) and all("sha256" in file for file in files.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def walk(directory: Path) -> Iterator[Path]:
    """Every file below, through links to directories too, but each directory once."""
    seen = set()
    for folder, below, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            below.clear()
            continue
        seen.add(real)
        below.sort()
        yield from (Path(folder, name) for name in names if Path(folder, name).is_file())
