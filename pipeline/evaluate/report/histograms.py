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
SAMPLED_TOKENS = 1 << 26
"""Where rows are so long that these are fewer."""
SHARDS_SAMPLED = 32
TOKENS_AT_A_TIME = 1 << 21
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
    chosen = evenly_spaced(len(rows), min(SAMPLED, max(1, SAMPLED_TOKENS // rows.seqlen)))
    for input_ids, sequence, padding in _blocks(rows, chosen):
        counts = _sum(counts, np.bincount(input_ids[~padding]))
        lengths += np.bincount(np.bincount(sequence[~padding]), minlength=len(lengths))
    sampled = len(chosen) < len(rows)
    binned = np.add.reduceat(lengths, edges[:-1])
    return TokenCounts(np.sort(counts[counts > 0])[::-1], sampled), Histogram(edges, binned, sampled)


def survey_records(files: dict[Path, int], kind: str) -> Histogram:
    """The lengths in characters of records of `kind`; `files` gives each shard's number of records."""
    paths = list(files)
    chosen = [paths[index] for index in evenly_spaced(len(paths), SHARDS_SAMPLED)]
    most = SAMPLED // max(len(chosen), 1)
    lengths = np.maximum(np.concatenate([_lengths(path, kind, files[path], most) for path in chosen]), 1)
    doublings = np.arange(BINS_PER_DOUBLING * int(lengths.max()).bit_length() + 1) / BINS_PER_DOUBLING
    edges = np.unique(np.floor(2**doublings).astype(np.int64))  # the last is above the longest
    counts = np.histogram(lengths, edges)[0]
    first, last = np.flatnonzero(counts)[[0, -1]]
    return Histogram(edges[first : last + 2], counts[first : last + 1], sampled=len(lengths) < sum(files.values()))


def _blocks(rows: Rows, chosen: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(token, number of its sequence, whether it is padding), each (rows, seqlen), block by block."""
    count = max(1, TOKENS_AT_A_TIME // rows.seqlen)
    for first in range(0, len(chosen), count):
        indices = chosen[first : first + count]
        seq_idx = rows.seq_idx[indices].astype(np.int64)
        last = seq_idx == seq_idx[:, -1:]
        marked = rows.loss_mask[indices] != NEVER
        padding = last & ~(last & marked).any(axis=1, keepdims=True)  # the only sequence with nothing to predict
        yield rows.input_ids[indices], seq_idx + np.arange(len(indices))[:, None] * (rows.seqlen + 1), padding


def _sum(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of counts, of which the shorter ends in zeros that are left out."""
    shorter, longer = sorted((one, other), key=len)
    total = longer.copy()
    total[: len(shorter)] += shorter
    return total


def _lengths(path: Path, kind: str, records: int, most: int) -> np.ndarray:
    lengths = pl.scan_parquet(path).select(characters(kind)).collect().to_series()
    return lengths.to_numpy()[evenly_spaced(records, most)]
