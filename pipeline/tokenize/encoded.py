"""The encoded shards of one kind and split, as one list of records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from pipeline import mapped
from pipeline.rows import NEVER, Sequences, smallest_uint

IDS, MASK = "ids", "mask"
"""The files of a shard's tokens, without a header: it takes four times as long to open one that has to be read."""

SHARDS = "shards.json"
BOUNDS, LENGTHS, BEGINS, FIRST_RESPONSE, TEXT_BYTES = (
    f"{name}.npy" for name in ("shard_bounds", "lengths", "begins", "first_response", "text_bytes")
)

MAPPED = 1 << 13
"""Shards whose tokens stay mapped, from one job to the next; Linux gives a process 65,530 maps."""


class Encoded:
    """The records of encoded shards, numbered through in the order of the shards; their tokens stay where they are.

    What is known of each record is in memory-mapped files (32 bytes a record): memory grows with the shards only.
    """

    def __init__(self, folder: Path) -> None:
        """`folder`: filled by `join_encoded`."""
        self.folder = folder
        listed = json.loads((folder / SHARDS).read_text(encoding="utf-8"))
        self._shards = [Path(shard) for shard in listed["shards"]]
        self._ids = smallest_uint(listed["vocab_size"])
        self._begins = mapped.read(folder / BEGINS)
        self.bounds = mapped.read(folder / BOUNDS)
        """(shards + 1,) int64: the records of shard s are those from `bounds[s]` to `bounds[s + 1]`."""
        self.lengths = mapped.read(folder / LENGTHS)
        """(records,) int64: tokens of each record."""
        self.first_response = mapped.read(folder / FIRST_RESPONSE)
        """(records,) int64: where in each record the first token to learn stands."""
        self.text_bytes = mapped.read(folder / TEXT_BYTES)
        """(records,) int64: UTF-8 bytes of each record's text: of the document, or of all words of the conversation."""

    def places(self, records: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Places:
        """Where tokens `starts` to `stops` of `records` are, each (sequences,)."""
        shards, which = np.unique(np.searchsorted(self.bounds, records, side="right") - 1, return_inverse=True)
        begins = self._begins[records] + starts
        return Places([self._shards[shard] for shard in shards.tolist()], which, begins, stops - starts, self._ids)


def join_encoded(shards: Sequence[Path], vocab_size: int, folder: Path) -> Encoded:
    """List the records of encoded shards in `folder`, one shard at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = {"shards": [str(shard) for shard in shards], "vocab_size": vocab_size}
    (folder / SHARDS).write_text(json.dumps(listed), encoding="utf-8")

    def parts(name: str) -> Iterator[np.ndarray]:
        return (np.load(shard / name) for shard in shards)

    sizes = [0]

    def begins() -> Iterator[np.ndarray]:
        for own in parts(LENGTHS):
            sizes.append(len(own))
            yield np.cumsum(own) - own

    for name in (LENGTHS, FIRST_RESPONSE, TEXT_BYTES):
        mapped.write(folder / name, "i8", parts(name))
    mapped.write(folder / BEGINS, "i8", begins())
    mapped.write(folder / BOUNDS, "i8", [np.cumsum(sizes)])
    return Encoded(folder)


@dataclass(frozen=True)
class Places:
    """Where some sequences are among the tokens of encoded shards."""

    shards: list[Path]
    which: np.ndarray
    """(sequences,) the shard of each, among these."""
    begins: np.ndarray
    """(sequences,) where it begins among the shard's tokens."""
    lengths: np.ndarray
    """(sequences,) int64: tokens of each."""
    dtype: np.dtype
    """Of the ids."""

    def read(self) -> Sequences:
        """The sequences, in this order; the first token of each is NEVER."""
        stops = np.cumsum(self.lengths)
        starts = stops - self.lengths
        ids, mask = np.empty(int(self.lengths.sum()), self.dtype), np.empty(int(self.lengths.sum()), np.uint8)
        to_ids, to_mask = ids.data, mask.data  # numpy takes twice as long for a slice
        by_shard = np.argsort(self.which, kind="stable")
        bounds = np.cumsum(np.bincount(self.which, minlength=len(self.shards)))
        targets = _slices(starts[by_shard], stops[by_shard])
        origins = _slices(self.begins[by_shard], (self.begins + self.lengths)[by_shard])
        first = 0
        for shard, end in zip(self.shards, bounds.tolist(), strict=True):
            own_ids, own_mask = _tokens(shard, self.dtype, (shard / IDS).stat().st_ino)
            for target, origin in zip(targets[first:end], origins[first:end], strict=True):
                to_ids[target] = own_ids[origin]
                to_mask[target] = own_mask[origin]
            first = end
        mask[starts] = NEVER
        return Sequences(ids, mask, self.lengths)


def _slices(starts: np.ndarray, stops: np.ndarray) -> list[slice]:
    return list(map(slice, starts.tolist(), stops.tolist()))


@lru_cache(maxsize=MAPPED)
def _tokens(shard: Path, dtype: np.dtype, inode: int) -> tuple[memoryview, memoryview]:
    """`inode` tells a shard from another of its name: no file gets that of one that is mapped."""
    return np.memmap(shard / IDS, dtype, "r").data, np.memmap(shard / MASK, np.uint8, "r").data
