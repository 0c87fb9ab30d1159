"""Whether a fastText model is whole. Its library does not look: of a file that is cut short it takes the rest for
zeros, and finds other languages, or dies of it.

    i32 magic, i32 version | 12 x i32 and f64, arguments | i32 entries, 2 x i32, i64, i64 pruned
    each entry: name, 0, i64, i8 | each pruned one: 2 x i32 | u8, the input's matrix | u8, the output's matrix

A matrix is i64 rows, i64 columns, f32 values; or quantised, which the byte before the input's says, and for the output
both bytes: u8 whether it has norms, i64 rows, i64 columns, i32 codes, codes, quantiser, (u8 norms [rows], quantiser).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

MAGIC, NEWEST = 793712314, 12
CENTROIDS = 256
"""Of a quantiser, for each of its dimensions."""


def check_model(file: Path) -> None:
    """
    Raises:
        ValueError: it is no model of fastText, or not all of one.
    """
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Reader(data).read_model()
    except (struct.error, ValueError):
        raise ValueError(f"{file}: not a fastText model, or cut short: bring the whole file") from None


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    def read_model(self) -> None:
        magic, version = self._take("<ii")
        if magic != MAGIC or version > NEWEST:
            raise ValueError("of another format")
        self._take("<12id")
        entries, *_, pruned = self._take("<iiiqq")
        for _ in range(entries):
            end = self._data.find(b"\0", self._at)
            self._skip(end + 1 - self._at)  # below 0 if there is none
            self._take("<qb")
        self._skip(8 * max(0, pruned))
        (is_quantised,) = self._take("<?")
        self._read_matrix(is_quantised)
        (output_too,) = self._take("<?")
        self._read_matrix(is_quantised and output_too)

    def _read_matrix(self, is_quantised: bool) -> None:
        if not is_quantised:
            rows, columns = self._take("<qq")
            self._skip(4 * rows * columns)
            return
        has_norms, rows, _, codes = self._take("<?qqi")
        self._skip(codes)
        self._read_quantiser()
        if has_norms:
            self._skip(rows)
            self._read_quantiser()

    def _read_quantiser(self) -> None:
        dimensions, *_ = self._take("<4i")
        self._skip(4 * dimensions * CENTROIDS)

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(form, self._data, self._at)
        self._skip(struct.calcsize(form))
        return found

    def _skip(self, size: int) -> None:
        self._at += size
        if size < 0 or self._at > len(self._data):
            raise ValueError("cut short")
