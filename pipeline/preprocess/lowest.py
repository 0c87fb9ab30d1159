"""Of what has a hash and a weight, the first in the order of the hashes, as far as their weights come to a sum.

Where that ends is found in four passes over all of it, by sums of the weights for 16 more bits of the hashes each time
(radix selection): in memory that does not grow with how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from pipeline.splitmix import U64

Weights = np.ndarray[Any, Any]
Pass = Callable[[], Iterable[tuple[U64, Weights]]]
"""All hashes and weights once more, some at a time, in the same order. The weights are whole numbers of at least 0."""

BITS = 16


class Lowest:
    """Those that count, in the order of their hashes and, of equal ones, in their own: each for whose weight the sum
    is nearer to what is wanted than without it.
    """

    def __init__(self, everything: Pass, wanted: float) -> None:
        """`wanted`: the sum; all weights together stay below 2^53, up to which floats are exact."""
        prefix, before = 0, 0.0
        for shift in range(64 - BITS, -1, -BITS):
            through = before + np.cumsum(_sums(everything, prefix, shift))
            digit = min(int(np.searchsorted(through, wanted)), (1 << BITS) - 1)
            before = float(through[digit - 1]) if digit else before
            prefix = prefix << BITS | digit
        self._last, self._so_far, self._wanted = np.uint64(prefix), before, wanted

    def take(self, hashes: U64, weights: Weights) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which of them count; called once for each part of a pass, in its order."""
        is_taken = hashes < self._last
        last = np.flatnonzero(hashes == self._last)
        ends = self._so_far + np.cumsum(weights[last].astype(np.int64))
        is_taken[last] = ends - weights[last] / 2 < self._wanted
        self._so_far = float(ends[-1]) if len(ends) else self._so_far
        return is_taken


def _sums(everything: Pass, prefix: int, shift: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The weights of the hashes that begin with `prefix`, by the 16 bits that come next."""
    sums = np.zeros(1 << BITS)
    first = prefix << BITS
    for hashes, weights in everything():
        digits = (hashes >> np.uint64(shift)) - np.uint64(first)  # of what begins with another prefix, too large
        is_own = digits < 1 << BITS
        sums += np.bincount(digits[is_own].astype(np.int64), weights[is_own], len(sums))
    return sums
