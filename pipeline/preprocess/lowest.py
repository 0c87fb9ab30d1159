"""Of what has a stratum, a hash and a weight, the first of each stratum in the order of the hashes, as far as their
weights come to a sum.

Where that ends is found for all strata at once, in passes over all of it, by sums of the weights for some more bits of
the hashes each time (radix selection): 4 passes for up to 4 strata, 16 at most, in memory that does not grow with how
much there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline.arrays import I64, U64, Bools

Weights = np.ndarray[Any, Any]
F64 = np.ndarray[Any, np.dtype[np.float64]]
Part = tuple[I64, U64, Weights]
"""Of some: the number of the stratum, the hash, the weight, a whole number of at least 0."""
Pass = Callable[[], Iterable[Part]]
"""All of them once more, some at a time, in the same order."""

SUMS = 1 << 18
"""In a pass: what stays in a core's cache. More for many strata, up to 25 MB for three of each of 65,535 sources."""
LEAST_BITS, MOST_BITS = 4, 16
"""In a pass."""


class Lowest:
    """Those that count, of each stratum in the order of their hashes and, of equal ones, in their own: each for whose
    weight the sum is nearer to what is wanted than without it.
    """

    def __init__(self, everything: Pass, wanted: Weights) -> None:
        """`wanted`: (strata,) the sums; all weights together stay below 2^53, up to which floats are exact."""
        bits = min(max((SUMS // max(len(wanted), 1)).bit_length() - 1, LEAST_BITS), MOST_BITS)
        prefixes, before, left = np.zeros(len(wanted), dtype=np.uint64), np.zeros(len(wanted)), 64
        while left:
            width = min(bits, left)
            left -= width
            through = _sums(everything, prefixes, left, width)
            np.cumsum(through, axis=1, out=through)
            through += before[:, None]
            digits = np.minimum(np.count_nonzero(through < wanted[:, None], axis=1), (1 << width) - 1)
            ahead = np.take_along_axis(through, np.maximum(digits - 1, 0)[:, None], axis=1)[:, 0]
            before = np.where(digits, ahead, before)
            prefixes = prefixes << np.uint64(width) | digits.astype(np.uint64)
        self._last, self._so_far, self._wanted = prefixes, before, wanted

    def take(self, strata: I64, hashes: U64, weights: Weights) -> Bools:
        """Which of them count; called once for each part of a pass, in its order."""
        last = self._last[strata]
        is_taken = hashes < last
        at = np.flatnonzero(hashes == last)
        at = at[np.argsort(strata[at], kind="stable")]
        own, heavy = strata[at], weights[at].astype(np.float64)
        ends = np.cumsum(heavy)
        is_first = np.diff(own, prepend=-1) != 0
        ends -= (ends - heavy)[is_first][np.cumsum(is_first) - 1]  # of each stratum from 0
        ends += self._so_far[own]
        is_taken[at] = ends - heavy / 2 < self._wanted[own]
        np.add.at(self._so_far, own, heavy)
        return is_taken


def _sums(everything: Pass, prefixes: U64, shift: int, width: int) -> F64:
    """(strata, 2^width) the weights of the hashes that begin with their stratum's prefix, by the next bits."""
    sums, count = np.zeros((len(prefixes), 1 << width)), np.uint64(1 << width)
    firsts = prefixes << np.uint64(width)
    for strata, hashes, weights in everything():
        digits = (hashes >> np.uint64(shift)) - firsts[strata]  # of what begins with another prefix, too large
        is_own = digits < count
        cells = (strata[is_own] << width) + digits[is_own].astype(np.int64)
        np.add.at(sums.reshape(-1), cells, weights[is_own].astype(np.float64))
    return sums
