"""A kill must not leave DVC with files that it refuses to read: it writes dvc.lock in place, for a tenth of a second.

Each stage keeps a copy of dvc.lock when it starts, since no DVC writes then. Whoever outlives a dvc that was killed, or
starts the next one, puts it back. What ended between the copy and the kill is made already: in work/, or DVC's cache.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.dvclock import LOCK, read_lock
from pipeline.work.publish import write_whole

KEPT = Path("work/locks", LOCK)
"""Of this directory, also where the work is another's; empty where there was no dvc.lock."""
DVC = Path(".dvc/tmp")
RUNNING = "rwlock"
"""What DVC's processes are at, in DVC's folder."""


CONFLICT = b"<<<<<<<"
"""Git's mark: that file is not for us to settle."""


def keep_lock(root: Path = Path()) -> None:
    """Copy dvc.lock, unless it is cut off."""
    if not _is_cut_off(root):
        (root / KEPT).parent.mkdir(parents=True, exist_ok=True)
        file = root / LOCK
        write_whole(root / KEPT, file.read_bytes() if file.exists() else b"")


def mend(root: Path = Path()) -> list[str]:
    """Put right what a killed dvc left cut off, unless another one is at work on it; returns the files' names."""
    if not _is_cut_off(root) and _is_json(root / DVC / RUNNING):
        return []
    mended = []
    with _no_dvc(root) as alone:
        if alone and _is_cut_off(root) and (root / KEPT).exists():
            if kept := (root / KEPT).read_bytes():
                write_whole(root / LOCK, kept)
            else:
                (root / LOCK).unlink()
            mended.append(LOCK)
        if alone and not _is_json(root / DVC / RUNNING):
            (root / DVC / RUNNING).unlink()  # it is a list of processes, and there is none
            mended.append(str(DVC / RUNNING))
    return mended


def _is_cut_off(root: Path) -> bool:
    """Whether DVC would refuse it, or the line's end is missing with which DVC ends it."""
    file = root / LOCK
    if not file.exists():
        return False
    content = file.read_bytes()
    try:
        read_lock(root)
    except ValueError:
        return CONFLICT not in content
    return not content.endswith(b"\n")


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except FileNotFoundError:
        return True
    except ValueError:
        return False
    return True


@contextmanager
def _no_dvc(root: Path) -> Iterator[bool]:
    """Whether no dvc writes its files; if so, none does until the block ends (it waits for 3 s)."""
    with ExitStack() as held:
        for name in ("lock", "rwlock.lock"):
            if (root / DVC / name).exists():
                file = held.enter_context((root / DVC / name).open("r"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    yield False
                    return
        yield True
