"""Where in a text an n-gram of an evaluation record can be, told by one place in so many: most texts share nothing.

An *anchor* is a run of (n + 1) // 2 words. Of a text to search, those are looked at that begin at every `stride`-th
word: each n-gram holds just one of them whole. Whether any evaluation record has it says a bitmap, of all its anchors,
at whatever word they begin; by chance it says so of one in 16 that none has. Only n-grams that hold such a one are
hashed and looked up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays import I64, U64
from pipeline.preprocess.ngrams import polynomials, polynomials_at

BITS_EACH = 16
LEAST_WIDTH, MOST_WIDTH = 13, 33
"""Bits for each anchor, at least, and of the number of a bit: a bitmap has 1 KB to 1 GB. With more than 2^29 anchors it
lets more through, which then are looked up."""


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
    bits = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
    found = polynomials_at(words, slice(None, None, stride(n)), anchor_words(n))
    numbers = found >> np.uint64(64 - (len(bits).bit_length() + 2))
    is_there = bits[(numbers >> np.uint64(3)).astype(np.int64)] >> (numbers & np.uint64(7)).astype(np.uint8) & 1
    starts = (np.flatnonzero(is_there)[:, None] * stride(n) - np.arange(stride(n))[::-1]).ravel()
    return starts[(starts >= 0) & (starts <= len(words) - n)]
