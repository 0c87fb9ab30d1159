"""Connected components of records, over an array that may be larger than memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline import mapped
from pipeline.arrays import I64


def unite(parent: I64, pairs: np.ndarray[Any, Any]) -> None:
    """Join the components of the two records of each pair.

    The smaller root becomes the parent of the larger, so that a component's root is its first record, in
    whatever order pairs come.

    Args:
        parent: (n,) of which an entry is at most its index, `arange` at first; changed in place. 8 bytes a record.
        pairs: (m, 2) record numbers; both may be memory maps.
    """
    for block in mapped.blocks(len(pairs)):
        left, right = np.array(pairs[block]).T
        while left.size:
            left, right = _roots(parent, left), _roots(parent, right)
            apart = left != right
            left, right = np.minimum(left, right)[apart], np.maximum(left, right)[apart]
            np.minimum.at(parent, right, left)


def flatten(parent: I64) -> None:
    """Make every entry the root of its record, in one pass: parents come before their children."""
    for block in mapped.blocks(len(parent)):
        parent[block] = _roots(parent, np.array(parent[block]))


def _roots(parent: I64, records: I64) -> I64:
    roots = np.array(parent[records])
    while True:
        above = parent[parent[roots]]
        if np.array_equal(above, roots):
            parent[records] = roots  # a shorter way for the next
            return roots
        parent[roots] = above  # halves every way that is climbed, or a long chain would be climbed link by link
        roots = np.array(above)
