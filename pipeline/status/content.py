"""What a path holds, as the md5 that DVC writes into dvc.lock."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.status.ignored import Ignored
from pipeline.status.memory import Memory


@dataclass(frozen=True)
class Content:
    """A file, or a directory with the md5 of each of its files by relative path."""

    md5: str
    """DVC's name for it; that of a directory ends in `.dir`."""
    files: dict[str, str] | None = None


class Contents:
    """Looks at paths of the project, at each once."""

    def __init__(self, root: Path, memory: Memory) -> None:
        self._root = root.absolute()
        self._ignored = Ignored(root)
        self._memory = memory
        self._seen: dict[str, Content | None] = {}

    def of(self, path: str) -> Content | None:
        """What is at a path of dvc.yaml; None when there is nothing, or nothing that DVC would look at."""
        if path not in self._seen:
            self._seen[path] = self._look(Path(os.path.normpath(self._root / path)))
        return self._seen[path]

    def _look(self, path: Path) -> Content | None:
        if path.is_dir():
            return None if self._ignored.folder(path) else directory(self._files(path))
        md5 = None if self._ignored.file(path) else self._md5(path)
        return Content(md5) if md5 else None

    def _files(self, directory: Path) -> dict[str, str]:
        found = {}
        for name, below, names in os.walk(directory):
            folder = Path(name)
            below[:] = [child for child in below if not self._ignored.folder(folder / child)]
            for path in (folder / child for child in names):
                if not self._ignored.file(path) and (md5 := self._md5(path)):
                    found[path.relative_to(directory).as_posix()] = md5
        return found

    def _md5(self, path: Path) -> str | None:
        with suppress(FileNotFoundError):  # a stage that is running may remove it meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                return self._memory.md5(path, status)
        return None


def directory(files: dict[str, str]) -> Content:
    """A directory by its files: the md5 of DVC's listing of it."""
    return Content(hashlib.md5(listing(files), usedforsecurity=False).hexdigest() + ".dir", files)


def listing(files: dict[str, str]) -> bytes:
    """A directory as DVC's cache keeps it."""
    return json.dumps([{"md5": files[path], "relpath": path} for path in sorted(files)]).encode()


def read_listing(path: Path) -> dict[str, str] | None:
    """The files of a listing; None where there is none, or none that can be read."""
    try:
        return {entry["relpath"]: entry["md5"] for entry in json.loads(path.read_bytes())}
    except (OSError, ValueError, LookupError, TypeError):
        return None
