"""Texts as arrays of characters, with what each character is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import polars as pl

from pipeline.arrays import I64, U64
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.unicode import Bits, CharacterClasses

SPACE, LETTER, NUMBER, TERMINAL, CORE, STICKY, INFIX, APOSTROPHE = (1 << bit for bit in range(8))
"""What a character is: white space; letter; number; punctuation that ends a sentence; neither space nor mark
(punctuation, symbol, control); mark that stays with the word that it begins or ends; mark that parts words inside;
apostrophe."""

NEWLINE = 10
BATCH = 1 << 20
"""Characters that are looked at together, about."""

_CLASSES = CharacterClasses(
    {
        SPACE: r"\p{White_Space}",
        LETTER: r"\p{L}",
        NUMBER: r"\p{N}",
        TERMINAL: r"\p{Sentence_Terminal}",
        CORE: r"[^\p{P}\p{S}\p{Cc}\p{White_Space}]",
        STICKY: r"[\-@/\\~^|]",
        INFIX: r"[\-\u{2013}\u{2014},:/=<>]",
        APOSTROPHE: r"['\u{2019}]",
    }
)

_MULTIPLIER = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Characters:
    """Some texts end to end, each with a newline after it.

    Attributes:
        codes: (chars,) uint32, the code points.
        starts, ends: (texts,) where each text starts and ends, its own newline left out.
    """

    codes: np.ndarray[Any, np.dtype[np.uint32]]
    starts: I64
    ends: I64

    @classmethod
    def of(cls, texts: pl.Series) -> Characters:
        """The characters of a String series without nulls."""
        joined = "\n".join([*texts.to_list(), ""])
        lengths = texts.str.len_chars().cast(pl.Int64).to_numpy()
        ends = np.cumsum(lengths + 1) - 1
        return cls(np.frombuffer(joined.encode("utf-32-le"), dtype=np.uint32), ends - lengths, ends)

    @property
    def texts(self) -> int:
        """How many texts there are."""
        return len(self.starts)

    @property
    def lengths(self) -> I64:
        """(texts,) characters in each."""
        return self.ends - self.starts

    @cached_property
    def bits(self) -> Bits:
        """(chars,) what each character is."""
        return _CLASSES.of(self.codes)

    @cached_property
    def filled(self) -> I64:
        """Where the characters are that are no white space, in order."""
        return np.flatnonzero((self.bits & SPACE) == 0)

    @cached_property
    def _prefixes(self) -> U64:
        """(chars + 1,) polynomial hashes of all that is before each place, modulo 2^64."""
        prefixes = np.zeros(len(self.codes) + 1, dtype=np.uint64)
        np.cumsum((self.codes + np.uint32(1)) * _powers(len(self.codes), inverse=False), out=prefixes[1:])
        return prefixes

    def hashes(self, starts: I64, ends: I64) -> U64:
        """(n,) 64 bits for the characters from each of `starts` to each of `ends`: equal where these are."""
        ahead = self._prefixes[ends] - self._prefixes[starts]
        return mix(ahead * _powers(len(self.codes), inverse=True)[starts])

    def count(self, places: I64) -> I64:
        """(texts,) how many of the places, which ascend, lie in each text."""
        return np.diff(np.searchsorted(places, np.append(self.starts, len(self.codes))))

    def owners(self, places: I64) -> I64:
        """(n,) the text that each of the places, which ascend, lies in."""
        return np.repeat(np.arange(self.texts), self.count(places))


def _powers(count: int, *, inverse: bool) -> U64:
    """At least `count` powers of the multiplier (odd, so that it has an inverse modulo 2^64), from the 0th."""
    size = max(BATCH, 1 << count.bit_length())
    return _powers_of(pow(_MULTIPLIER, -1, 1 << 64) if inverse else _MULTIPLIER, size)[:count]


@cache
def _powers_of(base: int, size: int) -> U64:
    powers = np.full(size, base, dtype=np.uint64)
    powers[0] = 1
    return np.cumprod(powers)
