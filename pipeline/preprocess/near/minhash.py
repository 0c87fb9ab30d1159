"""MinHash signatures of texts and the names of their bands."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
from rensa import RMinHash

from pipeline.preprocess.hashes import U64, tuple_names
from pipeline.preprocess.words import Offsets, ngram_hashes, words

_SEED = 1
_BLOCK = 1 << 22
"""Characters, about, whose words are held at a time."""


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
    parts = [_band_names(texts[start:end], start, kind, minhash) for start, end in _blocks(texts)]
    high, low, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    return high, low, rows


def signatures(hashes: U64, offsets: Offsets, count: int) -> np.ndarray[Any, Any]:
    """`count` values for each of the sets `hashes[offsets[i]:offsets[i + 1]]`: (n, count) uint32.

    They are R-MinHash's over the full set (rensa's ALGORITHM_VERSION 2), after Dahlgaard, Knudsen and Thorup 2017,
    "Fast similarity sketching": as good an estimate as independent permutations give, at a fraction of the hashing.
    """
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), count, _SEED)
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, count)


def _band_names(
    texts: pl.Series, start: int, kind: str, minhash: MinHash
) -> tuple[U64, U64, np.ndarray[Any, np.dtype[np.uint32]]]:
    hashes, offsets = ngram_hashes(words(texts), minhash.words, whole=True)
    rows = np.flatnonzero(np.diff(offsets))
    values = signatures(hashes, np.append(offsets[rows], offsets[-1]), minhash.bands * minhash.rows)
    banded = values.reshape(len(rows), minhash.bands, minhash.rows)
    names = [tuple_names(f"{kind} band {band}", banded[:, band].astype(np.uint64)) for band in range(minhash.bands)]
    high, low = (np.concatenate(halves) for halves in zip(*names, strict=True))
    return high, low, np.tile((rows + start).astype(np.uint32), minhash.bands)


def _blocks(texts: pl.Series) -> list[tuple[int, int]]:
    """Cuts of the texts, of about as many characters each; at least one."""
    ends = texts.str.len_chars().cum_sum().cast(pl.Int64).to_numpy()
    cuts = np.unique(np.searchsorted(ends, np.arange(_BLOCK, ends[-1] if len(ends) else 0, _BLOCK), side="right"))
    edges = [0, *(int(cut) for cut in cuts if 0 < cut < len(texts)), len(texts)]
    return list(pairwise(edges))
