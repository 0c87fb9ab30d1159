"""How long the training texts are and how often each token occurs, from a bounded sample however big the data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.rows import NEVER, Rows
from pipeline.shards.tables import characters

SAMPLED = 20_000
"""Rows or records that are looked at, evenly spaced; all of them where there are fewer."""
SHARDS_SAMPLED = 32
ROWS_AT_A_TIME = 1024
LENGTH_BINS = 32
BINS_PER_DOUBLING = 2


@dataclass(frozen=True)
class Histogram:
    """How many lengths fall between neighbouring `edges` (the lower one included), and of which lengths."""

    edges: np.ndarray
    counts: np.ndarray
    sampled: bool

    @property
    def shares(self) -> np.ndarray:
        return self.counts / self.counts.sum()


@dataclass(frozen=True)
class TokenCounts:
    """How often each token that occurs does, most frequent first."""

    counts: np.ndarray
    sampled: bool

    @property
    def shares(self) -> np.ndarray:
        return self.counts / self.counts.sum()

    @property
    def making_up_half(self) -> int:
        """How many of the most frequent tokens make up half of the text."""
        return int(np.searchsorted(np.cumsum(self.counts), self.counts.sum() / 2)) + 1


def evenly_spaced(total: int, most: int) -> np.ndarray:
    """At most `most` of the indices below `total`."""
    count = min(total, most)
    return np.arange(count) * total // max(count, 1)


def survey_rows(rows: Rows) -> tuple[TokenCounts, Histogram]:
    """The tokens and the sequence lengths of packed rows, padding left out."""
    counts = np.zeros(0, dtype=np.int64)
    width = -(-rows.seqlen // LENGTH_BINS)
    edges = np.arange(1, rows.seqlen + width + 1, width)
    lengths = np.zeros(edges[-1], dtype=np.int64)
    for input_ids, sequence, padding in _blocks(rows):
        found = np.bincount(input_ids[~padding])
        grown = np.zeros(max(len(counts), len(found)), dtype=np.int64)
        grown[: len(counts)] += counts
        grown[: len(found)] += found
        counts = grown
        lengths += np.bincount(np.bincount(sequence[~padding]), minlength=len(lengths))
    sampled = len(rows) > SAMPLED
    binned = np.add.reduceat(lengths, edges[:-1])
    return TokenCounts(np.sort(counts[counts > 0])[::-1], sampled), Histogram(edges, binned, sampled)


def survey_records(files: dict[Path, int], kind: str) -> Histogram:
    """The lengths in characters of records of `kind`; `files` gives each shard's number of records."""
    paths = sorted(files)
    chosen = [paths[index] for index in evenly_spaced(len(paths), SHARDS_SAMPLED)]
    most = SAMPLED // max(len(chosen), 1)
    lengths = np.maximum(np.concatenate([_lengths(path, kind, files[path], most) for path in chosen]), 1)
    doublings = np.arange(BINS_PER_DOUBLING * int(lengths.max()).bit_length() + 1) / BINS_PER_DOUBLING
    edges = np.unique(np.floor(2**doublings).astype(np.int64))  # the last is above the longest
    counts = np.histogram(lengths, edges)[0]
    first, last = np.flatnonzero(counts)[[0, -1]]
    return Histogram(edges[first : last + 2], counts[first : last + 1], sampled=len(lengths) < sum(files.values()))


def _blocks(rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(token, number of its sequence, whether it is padding), each (rows, seqlen), block by block."""
    chosen = evenly_spaced(len(rows), SAMPLED)
    for first in range(0, len(chosen), ROWS_AT_A_TIME):
        indices = chosen[first : first + ROWS_AT_A_TIME]
        seq_idx = rows.seq_idx[indices].astype(np.int64)
        last = seq_idx == seq_idx[:, -1:]
        marked = rows.loss_mask[indices] != NEVER
        padding = last & ~(last & marked).any(axis=1, keepdims=True)  # the only sequence with nothing to predict
        yield rows.input_ids[indices], seq_idx + np.arange(len(indices))[:, None] * (rows.seqlen + 1), padding


def _lengths(path: Path, kind: str, records: int, most: int) -> np.ndarray:
    lengths = pl.scan_parquet(path).select(characters(kind)).collect().to_series()
    return lengths.to_numpy()[evenly_spaced(records, most)]
