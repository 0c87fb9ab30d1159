"""n-grams of tokens that a text repeats.

An n-gram is known by the (n-1)-gram that it begins with and its last token; one that is there twice begins with one
that is there twice. So each n looks only at the places that n-1 left: in prose, fewer and fewer. n-grams are equal
token by token (datatrove compares their characters end to end for n > 4, which tells fewer apart).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import I64, U64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.quality.tokens import Tokens

TOP = (2, 3, 4)
DUPLICATE = (5, 6, 7, 8, 9, 10)

_FIRST_TOKEN = np.uint64(0xA0761D6478BD642F)


@dataclass(frozen=True)
class Repeated:
    """The n-grams that stand more than once in their text.

    Attributes:
        n: tokens in each.
        places: (p,) the tokens that they start with, in order.
        groups: (p,) the number of each n-gram, equal where the n-grams are.
        sizes: (groups,) how often each stands.
        first: (groups,) the first of its places.
    """

    n: int
    places: I64
    groups: I64
    sizes: I64
    first: I64


def repeated_ngrams(tokens: Tokens, longest: int) -> Iterator[Repeated]:
    """Those for n from 2 to `longest`."""
    last = np.repeat(tokens.bounds[1:], tokens.counts)
    places = np.arange(len(tokens.lengths))
    prefixes: U64 = tokens.hashes + tokens.owners.astype(np.uint64) * _FIRST_TOKEN
    for n in range(2, longest + 1):
        fits = places + n <= last[places]
        places, prefixes = places[fits], prefixes[fits]
        repeated = _group(n, places, mix(prefixes * _FIRST_TOKEN + tokens.hashes[places + n - 1]))
        yield repeated
        places, prefixes = repeated.places, repeated.groups.astype(np.uint64)


def _group(n: int, places: I64, keys: U64) -> Repeated:
    order = np.argsort(keys)
    in_order = keys[order]
    is_new = np.concatenate([[True], in_order[1:] != in_order[:-1]]) if len(keys) else np.zeros(0, dtype=bool)
    runs = np.flatnonzero(is_new)
    sizes = np.diff(np.append(runs, len(keys)))
    many = sizes > 1
    groups = np.full(len(keys), -1, dtype=np.int64)
    groups[order] = np.repeat(np.where(many, np.cumsum(many) - 1, -1), sizes)
    chosen = np.flatnonzero(groups >= 0)
    places, groups = places[chosen], groups[chosen]
    first = np.full(int(many.sum()), np.iinfo(np.int64).max)
    np.minimum.at(first, groups, places)
    return Repeated(n, places, groups, sizes[many], first)


def top_ngram_chars(tokens: Tokens, repeated: Repeated) -> I64:
    """(texts,) the characters in the occurrences of the most frequent n-gram, with a space between its tokens.

    Of several as frequent it is the first. Where none is there twice it is the text's first; 0 where there is none.
    """
    n, texts = repeated.n, len(tokens.counts)
    before = tokens.chars_before
    owners = np.searchsorted(tokens.bounds, repeated.first, side="right") - 1
    order = np.lexsort((repeated.first, -repeated.sizes, owners))
    owner, index = np.unique(owners[order], return_index=True)
    top = order[index]
    start = np.where(tokens.counts >= n, tokens.bounds[:-1], -1)
    size = np.ones(texts, dtype=np.int64)
    start[owner], size[owner] = repeated.first[top], repeated.sizes[top]
    there = start >= 0
    chars = np.zeros(texts, dtype=np.int64)
    chars[there] = (before[start[there] + n] - before[start[there]] + n - 1) * size[there]
    return chars


def duplicate_ngram_chars(tokens: Tokens, repeated: Repeated) -> I64:
    """(texts,) the characters (spaces left out) of n-grams that a walk over the text has met before.

    The walk is datatrove's: it goes on by one token after an n-gram that is new, and by n after one that it has met,
    so that none of the characters counts twice.
    """
    n, end = repeated.n, 0
    met = bytearray(len(repeated.sizes))
    counted = []
    for place, group in zip(repeated.places.tolist(), repeated.groups.tolist(), strict=True):
        if place >= end:
            if met[group]:
                counted.append(place)
                end = place + n
            else:
                met[group] = 1
    before = tokens.chars_before
    places = np.array(counted, dtype=np.int64)
    owners = np.searchsorted(tokens.bounds, places, side="right") - 1
    return np.bincount(owners, weights=before[places + n] - before[places], minlength=len(tokens.counts)).astype(
        np.int64
    )
