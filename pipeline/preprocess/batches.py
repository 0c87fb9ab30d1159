"""Texts in parts that the caches of a processor hold."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl


def batches(texts: pl.Series, size: int) -> Iterator[pl.Series]:
    """Consecutive parts of the texts of at most `size` characters; a longer text is alone."""
    ends = texts.str.len_chars().cum_sum().cast(pl.Int64)
    start = done = 0
    while start < len(texts):
        end = max(start + 1, int(ends.search_sorted(done + size, side="right")))
        yield texts[start:end]
        start, done = end, int(ends[end - 1])
