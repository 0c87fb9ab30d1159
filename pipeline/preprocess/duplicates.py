"""Which of the records that are alike stays, and which records are tied together for the splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.preprocess.components import I64, flatten, unite
from pipeline.preprocess.ledger import FREE, SPLIT_CODES, Ledger

Mask = np.ndarray[Any, np.dtype[np.bool_]]
Matcher = Callable[[str, Mask], list[Path]]
"""Given one of the runs' file names and which records take part, the files of pairs that share a name."""

_TRAIN = SPLIT_CODES.index("train")


def deduplicate(ledger: Ledger, parent: I64, pairs: list[Path], reason: str) -> None:
    """Join the pairs' components and drop all but one of the records of each that no reason drops yet.

    The one that stays is the first in the user's test split, else validation, else at all: what the user holds out
    stays whole. The reason is `<reason>_of_held_out` where that one is held out and this one is not, or less so.

    Args:
        ledger: `fixed` and `reason` are read, `reason` and `cause` are written.
        parent: the components so far, see `components.unite`; changed in place, flat at the end.
        pairs: files of (n, 2) record numbers.
    """
    for path in pairs:
        unite(parent, np.load(path, mmap_mode="r"))
    flatten(parent)
    rank = np.minimum(ledger["fixed"], _TRAIN).astype(np.int64)  # what is free stands with what is for train
    rows = np.flatnonzero(ledger.stays())
    order = rank[rows] * ledger.total + rows
    first = np.full(ledger.total, np.iinfo(np.int64).max)
    np.minimum.at(first, parent[rows], order)
    keeper = first[parent[rows]]
    held_out = (keeper // ledger.total < _TRAIN) & (keeper // ledger.total < rank[rows])
    keeper %= ledger.total
    for name, which in ((f"{reason}_of_held_out", held_out), (reason, ~held_out)):
        dropped = which & (keeper != rows)
        ledger.drop(rows[dropped], name, keeper[dropped])


def cluster_sizes(parent: I64, members: Mask) -> dict[int, int]:
    """How many components have so many of the members, by that number, from 2 on."""
    _, sizes = np.unique(parent[members], return_counts=True)
    counted = np.unique(sizes[sizes > 1], return_counts=True)
    return {int(size): int(count) for size, count in zip(*counted, strict=True)}


def is_fixed(ledger: Ledger) -> Mask:
    """Which records' splits the user's files fix."""
    return np.asarray(ledger["fixed"]) != FREE
