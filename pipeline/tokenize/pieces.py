"""What a plan of rows says: which tokens go into which row.

Plans are arrays in memory-mapped files, made from the records' lengths a block at a time: memory does not grow with the
records. A row is a list of pieces in order; padding follows the last.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Pieces(NamedTuple):
    """Pieces of records, one after another: tokens `starts` to `stops` of `records`, each (pieces,) int64."""

    records: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    counts: np.ndarray
    """(rows,) int64: how many of the pieces are each row's."""


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers from each of `starts` on, as many as `lengths` says, one after another."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())
