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

from pipeline.dvclock import LOCK, parse_lock, parse_yaml
from pipeline.work.publish import write_whole

KEPT = Path("work/locks", LOCK)
"""Of this directory, also where the work is another's; empty where there was no dvc.lock."""
BROKEN = KEPT.with_name(f"{LOCK}.cut-off")
"""What was put right, should somebody want to see it."""
DVC = Path(".dvc/tmp")
RUNNING = "rwlock"
"""What DVC's processes are at, in DVC's folder."""
CONFLICT = b"<<<<<<<"
"""Git's mark: that file is not for us to settle."""
LINES_CUT = 4
"""At the end of a file that is cut off so many may be without sense: an entry's key, and those above it."""


def keep_lock(root: Path = Path()) -> None:
    """Copy dvc.lock, if DVC takes it."""
    content = _content(root)
    if content is None or _taken(content):
        (root / KEPT).parent.mkdir(parents=True, exist_ok=True)
        write_whole(root / KEPT, content or b"")


def mend(root: Path = Path()) -> list[str]:
    """Put right what a killed dvc left cut off, unless another one is at work on it; returns the files' names."""
    if not _lock_is_cut_off(root) and _is_json(root / DVC / RUNNING):
        return []
    mended = []
    with _no_dvc(root) as alone:
        if alone and _lock_is_cut_off(root) and (root / KEPT).exists():
            write_whole(root / BROKEN, (root / LOCK).read_bytes())
            if kept := (root / KEPT).read_bytes():
                write_whole(root / LOCK, kept)
            else:
                (root / LOCK).unlink()
            mended.append(LOCK)
        if alone and not _is_json(root / DVC / RUNNING):
            (root / DVC / RUNNING).unlink()  # it is a list of processes, and there is none
            mended.append(str(DVC / RUNNING))
    return mended


def _content(root: Path) -> bytes | None:
    try:
        return (root / LOCK).read_bytes()
    except FileNotFoundError:
        return None


def _lock_is_cut_off(root: Path) -> bool:
    """Whether DVC refuses dvc.lock only for its end: without the last lines it would take it.

    A mistake that somebody made anywhere else is theirs to mend.
    """
    content = _content(root)
    if content is None or CONFLICT in content or _taken(content):
        return False
    lines = content.splitlines(keepends=True)
    return len(lines) <= LINES_CUT or any(_taken(b"".join(lines[:-cut])) for cut in range(1, LINES_CUT + 1))


def _taken(content: bytes) -> bool:
    """Whether DVC takes it as dvc.lock: by its own schema where it is not plain that it does."""
    try:
        parse_lock(Path(LOCK), content)
    except ValueError:
        return False
    if content.endswith(b"\n"):  # as DVC ends it; else its last value may be another
        return True
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(Path(LOCK), content))
    except Invalid:
        return False
    return True


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
