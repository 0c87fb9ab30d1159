"""Less memory for the pages of some files than there is (Linux): they are dropped whenever they come to too much."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import threading
from pathlib import Path
from types import TracebackType

import numpy as np

_LIBC = ctypes.CDLL(None, use_errno=True)
_MADV_PAGEOUT = 21  # of linux/mman.h: reclaim these pages now, as when memory is short


class Room:
    """While it is entered, at most so many MB of the files below a folder stay in memory, mapped or not.

    They are looked at 20 times a second; between two looks there may be more. What is dirty is written back first, for
    the kernel drops only what the disk has.
    """

    def __init__(self, folder: Path, mb: float) -> None:
        """`mb`: inf for all there is."""
        self._folder, self._mb, self._ended = folder.resolve(), mb, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self.peak_mb, self.drops, self.read_mb = 0.0, 0, 0.0
        """The most that was seen in memory, how often it was dropped, and what was read from the disk."""

    def __enter__(self) -> Room:
        if math.isfinite(self._mb):
            self._drop()
        self.read_mb = -_read_mb()
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._watch.join()
        self.read_mb += _read_mb()

    def _look(self) -> None:
        while not self._ended.wait(0.05):
            found = sum(map(_cached_mb, self._files()))
            self.peak_mb = max(self.peak_mb, found)
            if found > self._mb:
                self._drop()

    def _drop(self) -> None:
        self.drops += 1
        for path in self._files():
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
        for start, size in self._mappings():
            if _LIBC.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _MADV_PAGEOUT):
                raise OSError(ctypes.get_errno(), "madvise")
        for path in self._files():  # what is cached, but not mapped
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def _files(self) -> list[Path]:
        return [path for path in self._folder.rglob("*") if path.is_file() and path.stat().st_size]

    def _mappings(self) -> list[tuple[int, int]]:
        """Start and size of what this process has mapped of the files."""
        found = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            if f" {self._folder}/" in line:
                start, end = (int(place, 16) for place in line.split()[0].split("-"))
                found.append((start, end - start))
        return found


def _cached_mb(path: Path) -> float:
    """What of a file is in memory, whoever put it there."""
    pages = np.memmap(path, dtype=np.uint8, mode="r")
    is_cached = np.zeros(-(-pages.size // mmap.PAGESIZE), dtype=np.uint8)
    at, into = ctypes.c_void_p(pages.ctypes.data), ctypes.c_void_p(is_cached.ctypes.data)
    if _LIBC.mincore(at, ctypes.c_size_t(pages.size), into):
        raise OSError(ctypes.get_errno(), "mincore")
    return int(np.count_nonzero(is_cached & 1)) * mmap.PAGESIZE / 1e6


def _read_mb() -> float:
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes")) / 1e6
