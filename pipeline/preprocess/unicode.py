"""What characters are, from the Unicode tables of Polars, which the lock pins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

_CODE_POINTS = 0x110000

Codes = np.ndarray[Any, np.dtype[np.uint32]]
Bits = np.ndarray[Any, np.dtype[np.uint8]]


class CharacterClasses:
    """Looks code points up in classes of characters; what was met once is in a table."""

    def __init__(self, patterns: Mapping[int, str]) -> None:
        """
        Args:
            patterns: bit -> pattern in Polars' syntax, found in each character of the class.
        """
        self._patterns = patterns
        self._bits = np.zeros(_CODE_POINTS, dtype=np.uint8)
        self._known = np.zeros(_CODE_POINTS, dtype=bool)

    def of(self, codes: Codes) -> Bits:
        """(n,) the bits of all classes that each of the code points is in."""
        unknown = codes[~self._known[codes]]
        if len(unknown):
            self._enter(np.unique(unknown))
        return self._bits[codes]

    def _enter(self, codes: Codes) -> None:
        characters = pl.Series(list(map(chr, codes)))
        for bit, pattern in self._patterns.items():
            self._bits[codes] |= characters.str.contains(pattern).to_numpy().astype(np.uint8) * np.uint8(bit)
        self._known[codes] = True
