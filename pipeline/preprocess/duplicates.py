"""Which of the records that are alike stays, and which records are tied together for the splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.arrays import I64
from pipeline.preprocess.components import flatten, unite
from pipeline.preprocess.ledger import TRAIN, Ledger

_NEVER = np.iinfo(np.int64).max


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
    first = ledger.make("first", "i8")
    first[:] = _NEVER
    for rows, order in _ordered(ledger):
        np.minimum.at(first, parent[rows], order)
    for rows, order in _ordered(ledger):
        keeper = first[parent[rows]]
        rank, keeper_rank = order // ledger.total, keeper // ledger.total
        keeper %= ledger.total
        is_dropped = keeper != rows
        is_held_out = (keeper_rank < TRAIN) & (keeper_rank < rank)
        for name, which in ((f"{reason}_of_held_out", is_held_out), (reason, ~is_held_out)):
            which &= is_dropped
            if which.any():
                ledger.drop(rows[which], name, keeper[which])


def _ordered(ledger: Ledger) -> Iterator[tuple[I64, I64]]:
    """The numbers of the records that stay, a block at a time, and by what the first of several is told."""
    for rows in ledger.blocks():
        rows = rows[ledger["reason"][rows] == 0]
        rank = np.minimum(ledger["fixed"][rows], TRAIN).astype(np.int64)  # what is free stands with what is for train
        yield rows, rank * ledger.total + rows


def cluster_sizes(ledger: Ledger, parent: I64, members: np.ndarray[Any, Any]) -> dict[int, int]:
    """How many flat components have so many of the members (a bool for each record), by that number, from 2 on."""
    sizes = ledger.make("sizes", "i8")
    for rows in ledger.blocks():
        np.add.at(sizes, parent[rows[members[rows]]], 1)
    counts: Counter[int] = Counter()
    for rows in ledger.blocks():
        found, times = np.unique(sizes[rows], return_counts=True)
        counts.update(dict(zip(found.tolist(), times.tolist(), strict=True)))
    return {size: count for size, count in counts.items() if size > 1}
