"""The files of a folder, in the order of their names, whatever else may lie there.

Hidden names are left aside. Links are followed, out of the folder too (DVC follows them as well), but each folder is
read once: a link back up, or a second way to a folder, is a fault. Only regular files are opened, ever: nothing
waits on a FIFO or reads a device.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.sources.files import EMPTY, Fault, unreadable


class Found(NamedTuple):
    """What a name in a folder leads to; of what is at fault the size is 0."""

    name: str
    """Relative to the folder that was walked, with forward slashes."""
    size: int
    fault: Fault | None


def walk(root: Path) -> list[Found]:
    """Every file below `root`, and every folder that cannot be read."""
    seen: dict[str, str] = {}
    found: list[Found] = []
    folders, links = [""], list[str]()
    while folders or links:  # links come last, so that of two ways to a folder the link is the second
        found += _list(root, folders.pop() if folders else links.pop(0), seen, folders, links)
    return sorted(found, key=lambda each: each.name)


def look(path: Path, name: str) -> Found:
    """A file at `path`, to be called `name`."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return Found(name, 0, Fault("broken_link", "is a broken link: mend it or take it away"))
    except OSError as error:
        return Found(name, 0, unreadable(error))
    if not stat.S_ISREG(status.st_mode):
        return Found(name, 0, Fault("not_a_file", "is neither a file nor a folder: take it away"))
    if not _is_utf8(name):
        return Found(_printable(name), 0, Fault("bad_name", "has a name that is not UTF-8: rename it"))
    if not status.st_size:
        return Found(name, 0, EMPTY)
    return Found(name, status.st_size, None)


def _list(root: Path, folder: str, seen: dict[str, str], folders: list[str], links: list[str]) -> Iterator[Found]:
    """The files in `folder`; what leads to further folders is added to the lists."""
    try:
        real = os.path.realpath(root / folder, strict=True)
        names = sorted(entry.name for entry in os.scandir(root / folder) if not entry.name.startswith("."))
    except OSError as error:
        yield Found(_printable(folder), 0, unreadable(error))
        return
    if folder and f"{os.path.realpath((root / folder).parent)}{os.sep}".startswith(f"{real}{os.sep}"):
        yield _repeated(folder, "a link to a folder above it")
        return
    if real in seen:
        yield _repeated(folder, f"read already, as {seen[real]}")
        return
    seen[real] = folder
    for name in names:
        inner = f"{folder}/{name}" if folder else name
        if not os.path.isdir(root / inner):
            yield look(root / inner, inner)
        elif os.path.islink(root / inner):
            links.append(inner)
        else:
            folders.append(inner)


def _repeated(folder: str, what: str) -> Found:
    return Found(_printable(folder), 0, Fault("repeated", f"is {_printable(what)}: take it away"))


def _is_utf8(name: str) -> bool:
    return _printable(name) == name


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
