"""Publish a directory, or write a small file, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def publish_directory(target: Path) -> Iterator[Path]:
    """Give an empty directory to fill; when the block ends well it takes the place of `target`.

    The directory is a hidden sibling of `target` (`.<name>.tmp-<pid>`), so that the last step is a rename.
    After an exception `target` is as before; after a kill it is as before or, between the two renames,
    missing. What killed runs left behind is removed by the next one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(target)
    building = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    retired = target.with_name(f"{building.name}-old")
    building.mkdir()
    try:
        yield building
        if target.exists():
            target.rename(retired)
        building.rename(target)
    finally:
        if retired.exists() and not target.exists():  # stopped between the two
            retired.rename(target)
        remove(building)
        remove(retired)


def remove(path: Path) -> None:
    """Remove a directory with all in it, or whatever else it is, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def link_tree(source: Path, target: Path) -> None:
    """Add the files of `source` to `target` as hard links, so that both names outlive each other; copies elsewhere.

    A finished file is never written to again: what is made anew is written beside it and renamed.
    """
    for folder, _, names in os.walk(source):
        into = target / Path(folder).relative_to(source)
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            link_or_copy(Path(folder, name), into / name)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def write_whole(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    draft = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    draft.write_bytes(content)
    os.replace(draft, path)


def _remove_leftovers(target: Path) -> None:
    prefix = f".{target.name}.tmp-"
    for leftover in target.parent.glob(f"{prefix}*"):
        import psutil  # takes a while, and there is mostly nothing left

        pid = int(leftover.name.removeprefix(prefix).removesuffix("-old"))
        if pid == os.getpid() or not psutil.pid_exists(pid):
            remove(leftover)
