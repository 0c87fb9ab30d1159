"""Texts in parts, so that the arrays made of them are small and take turns in the same memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache

import numpy as np
import polars as pl

_KEPT = 1 << 25
"""Bytes: glibc takes no larger threshold."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h


def batches(texts: pl.Series, size: int) -> Iterator[pl.Series]:
    """Consecutive parts of the texts of at most `size` characters; a longer text is alone."""
    _reuse_memory()
    ends = np.cumsum(texts.str.len_chars().to_numpy().astype(np.int64))
    start = done = 0
    while start < len(texts):
        end = max(start + 1, int(np.searchsorted(ends, done + size, side="right")))
        yield texts[start:end]
        start, done = end, int(ends[end - 1])


@cache
def _reuse_memory() -> None:
    """Have glibc keep the memory that arrays leave: to get each page of it from the kernel anew takes as long as what
    is done with it. Other C libraries do as they do."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(_MMAP_THRESHOLD, _KEPT)
        mallopt(_TRIM_THRESHOLD, 2 * _KEPT)
