"""Arrays in memory-mapped files: what of them is in memory is the operating system's choice.

Their pages come and go with the file's, so that they may be larger than memory. Work on them goes a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Array = np.ndarray[Any, Any]

BLOCK = 1 << 18
"""Numbers at a time: what bounds the memory beside the files."""


def blocks(size: int) -> Iterator[slice]:
    """All of so many numbers, a block at a time."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def make(path: Path, dtype: str, size: int) -> Array:
    """An array of zeros in the new file `path`, a .npy, to be written at any place.

    Raises:
        OSError: the disk is full. The zeros are written, for a page of a sparse file that finds no space when it
            is first touched ends the process with SIGBUS.
    """
    zeros = (np.zeros(rows.stop - rows.start, dtype=dtype) for rows in blocks(size))
    return _written(path, dtype, zeros, "r+")


def write(path: Path, dtype: str, parts: Iterable[Array]) -> Array:
    """The parts, one after another, in the new file `path`, a .npy; to be read.

    Raises:
        OSError: the disk is full.
    """
    return _written(path, dtype, parts, "r")


def read(path: Path) -> Array:
    """The array in `path`."""
    return np.asarray(np.load(path, mmap_mode="r"))  # a memmap is slow to look up single entries in


def _written(path: Path, dtype: str, parts: Iterable[Array], mode: str) -> Array:
    path.unlink(missing_ok=True)  # whoever has the old file mapped keeps it as it is
    size = 0
    with path.open("wb") as file:
        _write_header(file, dtype, size)
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype=dtype).data)
            size += len(part)
        file.seek(0)
        _write_header(file, dtype, size)  # as long as the one before: numpy leaves room for the number
    return np.asarray(np.lib.format.open_memmap(path, mode=mode))


def _write_header(file: BinaryIO, dtype: str, size: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (size,)}
    np.lib.format.write_array_header_1_0(file, header)
