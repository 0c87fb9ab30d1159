"""MinHash signatures of texts and the names of their bands."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from rensa import RMinHash

from pipeline.arrays import I64, U64
from pipeline.preprocess.batches import batches
from pipeline.preprocess.hashes import tuple_names
from pipeline.preprocess.ngrams import ngram_hashes

_SEED = 1
_BATCH = 1 << 19
"""Characters, about, whose n-grams are held at a time."""


@dataclass(frozen=True)
class MinHash:
    """Word n-grams of `words` words; `bands` x `rows` values a signature."""

    words: int
    bands: int
    rows: int


def band_names(texts: pl.Series, kind: str, minhash: MinHash) -> tuple[U64, U64, np.ndarray[Any, Any]]:
    """What texts that are candidates share: for each text with a word and each band a name of 128 bits.

    Texts of different `kind` share no name.

    Returns:
        The halves of the names and the row of the text, each (texts with a word x bands,).
    """
    count = minhash.bands * minhash.rows
    values, rows, start = [np.empty((0, count), dtype=np.uint32)], [np.empty(0, dtype=np.uint32)], 0
    for part in batches(texts, _BATCH):
        hashes, offsets = ngram_hashes(part, minhash.words, whole=True)
        own = np.flatnonzero(np.diff(offsets))
        values.append(signatures(hashes, np.append(offsets[own], offsets[-1]), count))
        rows.append((own + start).astype(np.uint32))
        start += len(part)
    high, low = tuple_names(kind, np.concatenate(values).reshape(-1, minhash.bands, minhash.rows))
    return high.ravel(), low.ravel(), np.repeat(np.concatenate(rows), minhash.bands)


def signatures(hashes: U64, offsets: I64, count: int) -> np.ndarray[Any, Any]:
    """`count` values for each of the sets `hashes[offsets[i]:offsets[i + 1]]`: (n, count) uint32.

    They are R-MinHash's over the full set (rensa's ALGORITHM_VERSION 2), after Dahlgaard, Knudsen and Thorup 2017,
    "Fast similarity sketching": as good an estimate as independent permutations give, at a fraction of the hashing.
    """
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), count, _SEED)
    row = struct.Struct(f"={count}I")  # numpy takes longer to read lists
    packed = b"".join([row.pack(*values) for values in matrix.to_rows()])
    return np.frombuffer(packed, dtype=np.uint32).reshape(-1, count)
