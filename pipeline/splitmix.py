"""The finalizer of SplitMix64 (Steele, Lea and Flood 2014), over arrays."""

from __future__ import annotations

import numpy as np

from pipeline.arrays import U64


def finalize(values: U64) -> U64:
    """`values`, changed in place: a bijection in which each bit of the result depends on all of the value."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
