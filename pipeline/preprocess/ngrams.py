"""The hashes of the n-grams of words, for near duplicates and for decontamination."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.arrays import I64, U64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.words import word_hashes

_BASE = 0xD1342543DE82EF95
_AT_A_TIME = 1 << 14  # places whose n words are copied


def ngram_hashes(texts: pl.Series, n: int, *, whole: bool) -> tuple[U64, I64]:
    """The hash of each n-gram of the texts' words, in their order.

    An n-gram's hash is a polynomial in its words' hashes modulo 2^64, mixed.

    Args:
        texts: String without nulls.
        n: the words of an n-gram.
        whole: whether a text of fewer than `n` words, but at least one, counts as one n-gram.

    Returns:
        The hashes of all texts, one after the other, and where each text's begin and the last's end, (texts + 1,).
    """
    hashes, lengths = word_hashes(texts)
    if whole:
        missing = np.where((lengths > 0) & (lengths < n), n - lengths, 0)
        if missing.any():
            hashes = np.insert(hashes, np.repeat(np.cumsum(lengths), missing), np.uint64(0))
            lengths = lengths + missing
    return ngrams_of_words(hashes, lengths, n)


def ngrams_of_words(hashes: U64, lengths: I64, n: int) -> tuple[U64, I64]:
    """As `ngram_hashes`, from what `word_hashes` gave."""
    windows = polynomials(hashes, n)
    ends = np.cumsum(lengths)
    across = ends[:, None] - np.arange(1, n)  # the last places of a text, where no n-gram begins
    across = across[across >= (ends - lengths)[:, None]]
    is_within = np.ones(len(hashes), dtype=bool)
    is_within[across] = False
    offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths - n + 1, 0))])
    return mix(windows[is_within[: len(windows)]]), offsets


def ngrams_at(hashes: U64, starts: I64, n: int) -> U64:
    """The hashes of the n-grams that begin at these places of what `word_hashes` gave."""
    return mix(polynomials_at(hashes, starts, n))


def polynomials_at(values: U64, starts: I64 | slice, n: int) -> U64:
    """(starts,) the sum of values[i + j] * _BASE**j, j < n, for each i of `starts`, which `n` - 1 more follow."""
    if len(values) < n:
        return values[:0]
    windows, powers = sliding_window_view(values, n), np.array([_power(place) for place in range(n)])
    if isinstance(starts, slice):
        return windows[starts] @ powers
    parts = (windows[starts[first : first + _AT_A_TIME]] @ powers for first in range(0, len(starts), _AT_A_TIME))
    return np.concatenate([values[:0], *parts])


def polynomials(values: U64, n: int) -> U64:
    """(len - n + 1,) the sum of values[i + j] * _BASE**j, j < n, for each i: wide sums are made of narrower ones."""
    if len(values) < n:
        return values[:0]
    count = len(values) - n + 1
    total, width = np.zeros(count, dtype=np.uint64), 0
    span, size = values, 1
    while True:
        if n & size:
            total += span[width : width + count] * _power(width)
            width += size
        if width == n:
            return total
        span = span[:-size] + span[size:] * _power(size)
        size *= 2


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))
