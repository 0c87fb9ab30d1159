"""The draw of the splits, so that each kind and source has its share in every split.

A source that is large enough is drawn from by itself: another one that comes or goes moves none of its records. The
language plays no part: documents alone have one, and only with a model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline import mapped
from pipeline.arrays import I64, U64
from pipeline.preprocess.ledger import SPLIT_CODES, TRAIN
from pipeline.preprocess.lowest import Lowest, Part
from pipeline.shards.tables import KINDS

if TYPE_CHECKING:
    from pipeline.params import PreprocessParams

HELD_OUT = ("test", "validation")

Own = dict[str, set[str]]
"""By kind, the splits that the user has files for."""

_MASKS = 1 << len(KINDS)


def draw(strata: Strata, splits: np.ndarray[Any, Any]) -> None:
    """Write the split of each tie into `splits` (n,).

    In the order of their hashes the first ties of a stratum are test, the next validation, the rest train, at least one
    each where there are as many. The last tie of each source is held out last, so that a small one is not held out
    whole if others can be.
    """
    for block in mapped.blocks(len(splits)):
        splits[block] = TRAIN

    def one_each() -> Iterator[Part]:
        return ((numbers, order, np.ones_like(ties)) for ties, numbers, order in strata.parts())

    first = [Lowest(one_each, counts) for counts in np.cumsum(strata.counts, axis=0)]
    for ties, numbers, order in strata.parts():
        for split, lowest in reversed(list(zip(HELD_OUT, first, strict=True))):
            splits[ties[lowest.take(numbers, order, np.ones_like(ties))]] = SPLIT_CODES.index(split)


class Strata:
    """What is drawn from together, by number, and how many ties of each are held out.

    Ties with the same kinds and source, if they come to one at least in each split; those of smaller sources are in one
    draw for all of them.
    """

    def __init__(
        self,
        kinds: np.ndarray[Any, Any],
        sources: np.ndarray[Any, Any],
        hashes: np.ndarray[Any, Any],
        own: Own,
        params: PreprocessParams,
    ) -> None:
        """
        Args:
            kinds: (n,) the kinds of records each tie has, a bit for each place in KINDS; 0: there is no such tie.
            sources: (n,) the code of its source.
            hashes: (n,)
        """
        self._kinds, self._sources, self._hashes = kinds, sources, hashes
        fractions = np.zeros((len(HELD_OUT), _MASKS))
        for mask in range(1, _MASKS):
            names = [kind for place, kind in enumerate(KINDS) if mask >> place & 1]
            for place, split in enumerate(HELD_OUT):
                is_drawn = any(split not in own[kind] for kind in names)
                fractions[place, mask] = fraction_of(params, split) if is_drawn else 0.0
        totals: I64 = np.zeros(0, dtype=np.int64)
        self._last: U64 = np.zeros(0, dtype=np.uint64)
        for rows in self._blocks():
            cells = self._cells(rows)
            grown = max(len(totals), int(cells.max(initial=-1)) + 1)
            totals, self._last = (
                np.pad(totals, (0, grown - len(totals))),
                np.pad(self._last, (0, grown - len(self._last))),
            )
            totals += np.bincount(cells, minlength=grown)
            np.maximum.at(self._last, cells, hashes[rows])
        masks: I64 = np.arange(len(totals)) % _MASKS
        wanted = fractions[:, masks]
        is_small = ((wanted > 0) & (wanted * totals < 1)).any(axis=0)
        together = np.where(is_small, masks, np.arange(len(totals)) + _MASKS)
        """Of a kind and source that is large enough its own number, else one for all small sources of the kind."""
        sizes = np.bincount(together, weights=totals, minlength=len(totals) + _MASKS).astype(np.int64)
        counts = np.zeros((len(HELD_OUT), len(sizes)), dtype=np.int64)
        for number in np.flatnonzero(sizes).tolist():
            counts[:, number] = _counts(int(sizes[number]), fractions[:, number % _MASKS].tolist())
        is_drawn = np.any(counts, axis=0)
        self._numbers = np.where(is_drawn, np.cumsum(is_drawn) - 1, -1)[together]
        """Of each kind and source its stratum, -1 where none is held out."""
        self.counts = counts[:, is_drawn]
        """(splits, strata)"""

    def parts(self) -> Iterator[tuple[I64, I64, U64]]:
        """The ties of all strata, their strata, and by what they are drawn, the lowest first; a block at a time."""
        for ties in self._blocks():
            cells = self._cells(ties)
            numbers = self._numbers[cells]
            is_drawn = numbers >= 0
            ties, cells = ties[is_drawn], cells[is_drawn]
            hashes = self._hashes[ties]
            is_last = hashes == self._last[cells]
            yield ties, numbers[is_drawn], (hashes >> np.uint64(1)) | (is_last.astype(np.uint64) << np.uint64(63))

    def _blocks(self) -> Iterator[I64]:
        """The ties, a block at a time."""
        for block in mapped.blocks(len(self._kinds)):
            yield block.start + np.flatnonzero(self._kinds[block])

    def _cells(self, ties: I64) -> I64:
        return self._sources[ties].astype(np.int64) * _MASKS + self._kinds[ties]


def _counts(size: int, fractions: list[float]) -> list[int]:
    """How many of so many are held out for each split."""
    counts: list[int] = []
    for fraction in fractions:
        counts.append(max(0, min(_share(fraction, size), size - 1 - sum(counts))))  # one at least is for train
    return counts


def _share(fraction: float, count: int) -> int:
    return math.ceil(round(fraction * count, 6))  # 0.07 * 100 is a little more than 7


def fraction_of(params: PreprocessParams, split: str) -> float:
    """The share of a split that is drawn."""
    return {"test": params.test_fraction, "validation": params.validation_fraction}[split]
