"""Texts cut into tokens: words, and marks that stand alone.

What white space keeps apart is cut further, after the manner of spaCy's English rules, whose tokens datatrove counts:
each mark at its start or end is a token of its own (dots in a row are one), and so is a hyphen, dash, comma, colon,
slash, `=`, `<` or `>` between letters. Other marks inside stay: `don't`, `3.14`, `foo.bar`. Where spaCy departs:
contractions (`do n't`), abbreviations (`e.g.`), units after numbers, addresses, some marks at the start of a word.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from pipeline.preprocess.quality.characters import CORE, INFIX, LETTER, SPACE, Bits, Characters, Flags, Hashes, Ints

_DOT = ord(".")


@dataclass(frozen=True)
class Tokens:
    """The tokens of some texts in order.

    Attributes:
        lengths: (tokens,) characters.
        bits: (tokens,) what the characters of each are, together.
        hashes: (tokens,) equal where their characters are.
        bounds: (texts + 1,) the tokens of text t are those from bounds[t] to bounds[t + 1].
    """

    lengths: Ints
    bits: Bits
    hashes: Hashes
    bounds: Ints

    @property
    def counts(self) -> Ints:
        """(texts,) tokens in each."""
        return np.diff(self.bounds)

    def owners(self) -> Ints:
        """(tokens,) the text of each."""
        return np.repeat(np.arange(len(self.bounds) - 1), self.counts)


def tokenize(characters: Characters) -> Tokens:
    """Cut texts into tokens."""
    bits, codes = characters.bits, characters.codes
    filled = (bits & SPACE) == 0
    is_start = filled.copy()
    is_start[1:] &= ~filled[:-1]
    is_core = (bits & CORE) != 0
    outer = filled & ~_inside(is_start, filled, is_core)
    is_start |= outer
    is_start[1:] |= outer[:-1] & filled[1:]
    in_dots = outer[1:] & outer[:-1] & (codes[1:] == _DOT) & (codes[:-1] == _DOT)
    is_start[1:] &= ~in_dots
    infixes = np.flatnonzero(bits & INFIX)
    infixes = infixes[(bits[infixes - 1] & bits[infixes + 1] & LETTER) != 0]  # the last character is a newline
    is_start[infixes] = True
    is_start[infixes + 1] = True
    is_end = filled.copy()
    is_end[:-1] &= ~filled[1:] | is_start[1:]
    starts, ends = np.flatnonzero(is_start), np.flatnonzero(is_end) + 1
    together = np.bitwise_or.reduceat(bits, starts) if len(starts) else np.zeros(0, dtype=np.uint8)
    bounds = np.searchsorted(starts, np.append(characters.starts, len(codes)))
    return Tokens(ends - starts, together, characters.hashes(starts, ends), bounds)


def _inside(is_start: Flags, filled: Flags, is_core: Flags) -> Flags:
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


def hash_word(word: str) -> np.uint64:
    """The hash of a token of these characters."""
    characters = Characters.of(pl.Series([word]))
    return characters.hashes(characters.starts, characters.ends)[0]
