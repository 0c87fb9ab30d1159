"""The encoded shards of one kind and split, as one list of records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.rows import NEVER, Sequences
from pipeline.shards.threads import map_threads


class Encoded:
    """The records of encoded shards, numbered through in the order of the shards; the tokens are memory maps.

    What is held in memory grows with the records (32 bytes for each), not with their tokens.
    """

    def __init__(self, shards: Sequence[Path], scratch: Path) -> None:
        """`scratch`: a new directory for the tokens of all shards in one file; a map of each would be too many."""
        scratch.mkdir(parents=True)
        self._ids, self._mask = map_threads(lambda name: _join(shards, name, scratch / name), ("ids", "mask"))
        self.lengths = np.concatenate([np.load(shard / "lengths.npy") for shard in shards])
        """(records,) int64: tokens of each record."""
        self.first_response = np.concatenate([np.load(shard / "first_response.npy") for shard in shards])
        """(records,) int64: where in each record the first token to learn stands."""
        self.text_bytes = np.concatenate([np.load(shard / "text_bytes.npy") for shard in shards])
        """(records,) int64: UTF-8 bytes of each record's text: of the document, or of all words of the conversation."""
        self._begins = np.cumsum(self.lengths) - self.lengths

    def sequences(self, records: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> Sequences:
        """Tokens `starts` to `stops` of `records`, each (sequences,); the first token of each sequence is NEVER."""
        begins = self._begins[records]
        spans = list(zip((begins + starts).tolist(), (begins + stops).tolist(), strict=True))
        lengths = stops - starts
        mask = np.concatenate([self._mask[start:stop] for start, stop in spans])
        mask[np.cumsum(lengths) - lengths] = NEVER
        return Sequences(np.concatenate([self._ids[start:stop] for start, stop in spans]), mask, lengths)


def _join(shards: Sequence[Path], name: str, target: Path) -> np.ndarray:
    """The arrays `name` of all shards, one after another, as a memory map of the file `target`."""
    with target.open("wb") as file:
        for shard in shards:
            array = np.load(shard / f"{name}.npy")
            array.tofile(file)
    return np.asarray(np.memmap(target, dtype=array.dtype, mode="r"))
