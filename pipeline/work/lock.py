"""A lock on a folder: one process works in it; the kernel lets go of it however the process ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

LOCK = "lock"


@contextmanager
def locked(folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of `folder` (which is made), once any other process has let go of it.

    Args:
        waiting: called with who holds it, before the wait.
    """
    file = _take(folder, waiting)
    with file:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether nobody works in `folder`; if so, nobody begins to until the block ends."""
    try:
        file = (folder / LOCK).open("r")
    except FileNotFoundError:
        yield False
        return
    with file:
        yield _try(file, fcntl.LOCK_EX) and _is_lock_of(folder, file)


def holder(folder: Path) -> int | None:
    """The process that works in `folder`; None when nobody does, 0 when it has not said yet who it is."""
    try:
        file = (folder / LOCK).open("r")
    except FileNotFoundError:
        return None
    with file:
        if _try(file, fcntl.LOCK_SH):
            return None
        return _pid(file)


def _take(folder: Path, waiting: Callable[[str], None]) -> IO[str]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        try:
            file = (folder / LOCK).open("a+")
        except FileNotFoundError:  # pruned in between, here and below
            continue
        if not _try(file, fcntl.LOCK_EX):
            waiting(f"process {_pid(file) or 'unknown'}")
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_lock_of(folder, file):
            return file
        file.close()


def _is_lock_of(folder: Path, file: IO[str]) -> bool:
    """Whether it still is: the folder may have been pruned, and made anew, since it was opened."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK))
    except FileNotFoundError:
        return False


def _try(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid(file: IO[str]) -> int:
    file.seek(0)
    return int(file.read().strip() or 0)
