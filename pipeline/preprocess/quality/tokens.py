"""Texts cut into tokens: words, and marks that stand alone.

What white space keeps apart is cut further, after the manner of spaCy's English rules, whose tokens datatrove
counts: each mark at its start or end is a token of its own (dots in a row are one), up to the first or last character
that is no mark or one of `-@/\\~^|`; so is a hyphen, dash, comma, colon, slash, `=`, `<` or `>` between a letter or
number and a letter; and contractions part (`do n't`, `it 's`, `we 'll`). Other marks inside stay: `3.14`, `foo.bar`.
Where spaCy departs: it keeps abbreviations (`e.g.`), addresses and faces such as `):` whole, parts numbers from units
(`10 km`) and `bar.Baz` at the dot, and knows many contractions one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import polars as pl

from pipeline.arrays import I64, U64, Bools
from pipeline.preprocess.quality.characters import (
    APOSTROPHE,
    CORE,
    INFIX,
    LETTER,
    NUMBER,
    SPACE,
    STICKY,
    Bits,
    Characters,
)

_DOT = ord(".")
_ONE_LETTER = [ord(letter) for letter in "smd"]
_TWO_LETTERS = [ord(pair[0]) << 8 | ord(pair[1]) for pair in ("ll", "re", "ve")]


@dataclass(frozen=True)
class Tokens:
    """The tokens of some texts in order.

    Attributes:
        lengths: (tokens,) characters.
        bits: (tokens,) what the characters of each are, together.
        hashes: (tokens,) equal where their characters are.
        bounds: (texts + 1,) the tokens of text t are those from bounds[t] to bounds[t + 1].
    """

    lengths: I64
    bits: Bits
    hashes: U64
    bounds: I64

    @property
    def counts(self) -> I64:
        """(texts,) tokens in each."""
        return np.diff(self.bounds)

    @cached_property
    def chars_before(self) -> I64:
        """(tokens + 1,) the characters of the tokens before each, those of other texts too."""
        return np.concatenate([[0], np.cumsum(self.lengths)])

    @cached_property
    def owners(self) -> I64:
        """(tokens,) the text of each."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.counts)


def tokenize(characters: Characters) -> Tokens:
    """Cut texts into tokens."""
    bits, codes = characters.bits, characters.codes
    filled = (bits & SPACE) == 0
    is_start = filled.copy()
    is_start[1:] &= ~filled[:-1]
    outer = filled & ~_inside(is_start, filled, (bits & (CORE | STICKY)) != 0)
    is_start |= outer
    is_start[1:] |= outer[:-1] & filled[1:]
    in_dots = outer[1:] & outer[:-1] & (codes[1:] == _DOT) & (codes[:-1] == _DOT)
    is_start[1:] &= ~in_dots
    infixes = np.flatnonzero(bits & INFIX)
    before, after = bits[infixes - 1], bits[infixes + 1]  # the last character of all is a newline
    infixes = infixes[((before & (LETTER | NUMBER)) != 0) & ((after & LETTER) != 0)]
    is_start[infixes] = True
    is_start[infixes + 1] = True
    is_start[_contractions(characters)] = True
    is_end = filled.copy()
    is_end[:-1] &= ~filled[1:] | is_start[1:]
    starts, ends = np.flatnonzero(is_start), np.flatnonzero(is_end) + 1
    together = np.bitwise_or.reduceat(bits, starts) if len(starts) else np.zeros(0, dtype=np.uint8)
    bounds = np.searchsorted(starts, np.append(characters.starts, len(codes)))
    return Tokens(ends - starts, together, characters.hashes(starts, ends), bounds)


def _inside(is_start: Bools, filled: Bools, is_core: Bools) -> Bools:
    """(chars,) whether each lies between the first and the last that is no mark of what spaces keep apart."""
    starts = np.flatnonzero(is_start)
    core = np.flatnonzero(is_core)
    ends = np.append(starts[1:], len(filled))
    first = np.searchsorted(core, starts)
    last = np.searchsorted(core, ends) - 1
    has_core = first <= last
    edges = np.zeros(len(filled) + 1, dtype=np.int8)
    edges[core[first[has_core]]] = 1
    edges[core[last[has_core]] + 1] = -1
    return np.cumsum(edges[:-1], dtype=np.int8).astype(bool)


def _contractions(characters: Characters) -> I64:
    """Where the second word of a contraction starts."""
    bits, codes = characters.bits, characters.codes
    places = np.flatnonzero(bits & APOSTROPHE)
    places = places[(bits[places - 1] & LETTER) != 0]
    after = np.minimum(places + np.arange(1, 4)[:, None], len(codes) - 1)
    goes_on = (bits[after] & (LETTER | NUMBER)) != 0
    lower = codes[after] | 32  # the lower case of an ASCII letter
    one = np.isin(lower[0], _ONE_LETTER) & ~goes_on[1]
    two = np.isin(lower[0] << 8 | lower[1], _TWO_LETTERS) & goes_on[0] & goes_on[1] & ~goes_on[2]
    is_not = (
        (codes[places - 1] | 32 == ord("n")) & (bits[places - 2] & LETTER != 0) & (lower[0] == ord("t")) & ~goes_on[1]
    )
    return np.concatenate([places[one | two], places[is_not] - 1])


@cache
def hash_word(word: str) -> np.uint64:
    """The hash of a token of these characters."""
    characters = Characters.of(pl.Series([word]))
    return characters.hashes(characters.starts, characters.ends)[0]
