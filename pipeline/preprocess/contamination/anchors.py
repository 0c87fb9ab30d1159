"""Where in a text an n-gram of an evaluation record can be, told by one place in so many: most texts share nothing.

An *anchor* is a run of (n + 1) // 2 words. An n-gram holds `stride` of them whole. Whether any evaluation record has
one says a bitmap, of all its anchors; by chance it says so of one in 8 that none has, at most. Of a text to search,
those are asked for that begin at every `stride`-th word: each n-gram holds just one. Only about one that is there all
others are, and only n-grams of which all are there are hashed and looked up. So a bitmap that is too small for what is
held out still keeps most away: with one bit for each anchor 63% are there by chance, and all seven of a 13-gram at 4%.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.arrays import I64, U64, Bools
from pipeline.preprocess.ngrams import polynomials, polynomials_at

BITS_EACH = 8
LEAST_WIDTH, MOST_WIDTH = 13, 33
"""Bits for each anchor, at least, and of the number of a bit: a bitmap has 1 KB to 1 GB. With more than 2^30 anchors it
lets more through."""

_AT_A_TIME = 1 << 13
"""Anchors that are there, about which others are asked for together: some 4 MB."""


def anchor_words(n: int) -> int:
    """The words of an anchor."""
    return (n + 1) // 2


def stride(n: int) -> int:
    """From one anchor of a text to the next."""
    return n - anchor_words(n) + 1


def anchors(words: U64, n: int) -> U64:
    """Of evaluation records, by the hashes of their words: all anchors, in order. A few stand across two records."""
    return np.sort(polynomials(words, anchor_words(n)))


def width_for(count: int) -> int:
    """How many of an anchor's first bits are the number of its bit, where there are so many anchors."""
    return min(max((BITS_EACH * count - 1).bit_length(), LEAST_WIDTH), MOST_WIDTH)


def bitmap(found: U64, width: int, low: int, high: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The bytes of the bitmap for the anchors `found`, from `low` on and below `high`, which are at bounds of bytes."""
    shift = 64 - width
    numbers = np.sort(found >> np.uint64(shift)) - np.uint64(low >> shift)
    places, bits = (numbers >> np.uint64(3)).view(np.int64), np.uint8(1) << (numbers.astype(np.uint8) & np.uint8(7))
    starts = np.flatnonzero(np.diff(places, prepend=-1))
    made = np.zeros((high - low) >> (shift + 3), dtype=np.uint8)
    if len(starts):
        made[places[starts]] = np.bitwise_or.reduceat(bits, starts)
    return made


def candidates(path: Path, words: U64, n: int) -> I64:
    """The places of texts, by the hashes of their words, at which an n-gram may begin that the bitmap in `path` is of,
    in order. Some are across two texts."""
    bits, size, step = np.asarray(np.memmap(path, dtype=np.uint8, mode="r")), anchor_words(n), stride(n)
    found = np.flatnonzero(_is_in(bits, polynomials_at(words, slice(None, None, step), size))) * step
    starts = [found[:0]]
    for first in range(0, len(found), _AT_A_TIME):
        around = found[first : first + _AT_A_TIME, None] + np.arange(1 - step, step)
        is_inside = (around >= 0) & (around <= len(words) - size)
        is_there = np.zeros(around.shape, dtype=bool)
        is_there[is_inside] = _is_in(bits, polynomials_at(words, around[is_inside], size))
        starts.append(around[:, :step][sliding_window_view(is_there, step, axis=1).all(axis=2)])
    return np.concatenate(starts)


def _is_in(bits: np.ndarray[Any, np.dtype[np.uint8]], found: U64) -> Bools:
    """Whether the bitmap has each of these anchors."""
    numbers = found >> np.uint64(64 - (len(bits).bit_length() + 2))
    return (bits[(numbers >> np.uint64(3)).view(np.int64)] >> (numbers & np.uint64(7)).astype(np.uint8) & 1).view(bool)
