"""The words of a text and the hashes of its n-grams, for near duplicates and for decontamination.

A word is a run of letters, digits, marks and underscores, in lower case; where a script has no spaces between words
(Chinese, Japanese, Thai, ...) each of its characters is one. Punctuation and spacing do not count.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.preprocess.hashes import U64, mix, string_hashes

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]|[\w--{_UNSPACED}]+"
_BASE = np.uint64(0xD1342543DE82EF95)  # odd, so that it has an inverse modulo 2^64
_INVERSE = np.uint64(pow(int(_BASE), -1, 2**64))

Offsets = np.ndarray[Any, np.dtype[np.int64]]


def words(texts: pl.Series) -> pl.Series:
    """The words of each text: list of str."""
    return texts.str.to_lowercase().str.extract_all(_WORD)


def ngram_hashes(lists: pl.Series, n: int, *, whole: bool) -> tuple[U64, Offsets]:
    """The hash of each n-gram of the lists of words, in their order.

    An n-gram's hash is a polynomial in its words' hashes modulo 2^64, mixed: by differences of prefix sums it costs
    the same for any n.

    Args:
        lists: as `words` gives them.
        n: the words of an n-gram.
        whole: whether a list of fewer than `n` words, but at least one, counts as one n-gram.

    Returns:
        The hashes of all lists, one after the other, and where each list's begin and the last's end, (len + 1,).
    """
    lengths = lists.list.len().to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    hashes = string_hashes(lists.explode(empty_as_null=False))
    sums = np.zeros(len(hashes) + 1, dtype=np.uint64)
    np.cumsum(hashes * _powers(_BASE, len(hashes)), out=sums[1:])
    counts = np.maximum(lengths - n + 1, (lengths > 0) & whole)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    first = np.repeat(ends - lengths - offsets[:-1], counts) + np.arange(offsets[-1])
    last = np.minimum(first + n, np.repeat(ends, counts))
    values = (sums[last] - sums[first]) * _powers(_INVERSE, len(hashes) + 1)[first]
    return mix(values), offsets


def _powers(base: np.uint64, count: int) -> U64:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
