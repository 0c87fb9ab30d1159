"""Less memory for the pages of some files than there is (Linux): they are dropped whenever they come to too much."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_MADV_PAGEOUT = 21  # of linux/mman.h: reclaim these pages now, as when memory is short


class Room:
    """What was seen of the files below a folder, 20 times a second."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.peak_mb, self.drops, self.read_mb = 0.0, 0, -_read_mb()
        """The most that was in memory, mapped or not; how often it was dropped; what the process read from the disk."""

    def look(self, most_mb: float) -> None:
        """Drop all if there is more than that."""
        found = sum(map(_cached_mb, self._files()))
        self.peak_mb = max(self.peak_mb, found)
        if found > most_mb:
            self.drop()

    def drop(self) -> None:
        """Drop the pages of all files, written back first: the kernel drops only what the disk has."""
        self.drops += 1
        for path in self._files():
            with suppress(FileNotFoundError), path.open("rb") as file:
                os.fdatasync(file.fileno())
        for start, size in self._mappings():
            _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_PAGEOUT)  # fails where it is gone by now
        for path in self._files():  # what is cached, but not mapped
            with suppress(FileNotFoundError), path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.rglob("*") if path.is_file()]

    def _mappings(self) -> list[tuple[int, int]]:
        """Start and size of what this process has mapped of the files."""
        found = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            if f" {self._folder}/" in line:
                start, end = (int(place, 16) for place in line.split()[0].split("-"))
                found.append((start, end - start))
        return found


@contextmanager
def limited(folder: Path, mb: float) -> Iterator[Room]:
    """While the block runs, have at most so many MB of the files below a folder in memory (inf: all there is).

    Between two looks there may be more.
    """
    room, ended = Room(folder), threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            room.look(mb)

    if math.isfinite(mb):
        room.drop()
    with ThreadPoolExecutor(1) as threads:
        watching = threads.submit(watch)
        try:
            yield room
        finally:
            ended.set()
    watching.result()  # raises what ended it
    room.read_mb += _read_mb()


def _cached_mb(path: Path) -> float:
    """What of a file is in memory, whoever put it there."""
    try:
        pages = np.memmap(path, dtype=np.uint8, mode="r")
    except (FileNotFoundError, ValueError):  # it is made anew right now: gone, or empty
        return 0.0
    is_cached = np.zeros(-(-pages.size // mmap.PAGESIZE), dtype=np.uint8)
    at, into = ctypes.c_void_p(pages.ctypes.data), ctypes.c_void_p(is_cached.ctypes.data)
    if _LIBC.mincore(at, ctypes.c_size_t(pages.size), into):
        raise OSError(ctypes.get_errno(), "mincore")
    return int(np.count_nonzero(is_cached & 1)) * mmap.PAGESIZE / 1e6


def _read_mb() -> float:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes")) / 1e6
