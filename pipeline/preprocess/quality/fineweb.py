"""What FineWeb's rules look at: lines that are not blank, as newlines part them."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.preprocess.quality.characters import TERMINAL, Characters
from pipeline.preprocess.quality.segments import Segments, count_newlines, count_repeats, first_and_last
from pipeline.preprocess.quality.shares import share
from pipeline.preprocess.quality.tokens import Tokens

SHORT = 30
"""Characters of a short line, at most."""


def measure_fineweb(characters: Characters, lines: Segments, tokens: Tokens) -> dict[str, pl.Series]:
    """Shares of lines and of characters (newlines left out), and newlines for each token."""
    texts = characters.texts
    filled, _, _ = first_and_last(characters, lines)
    count = np.bincount(filled.owners, minlength=texts)
    newlines = count_newlines(characters)
    is_punctuated = (characters.bits[filled.ends - 1] & TERMINAL) != 0
    _, chars = count_repeats(characters, filled)
    return {
        "punctuated_lines": share(filled.per_text(is_punctuated, texts), count),
        "short_lines": share(filled.per_text(filled.ends - filled.starts <= SHORT, texts), count),
        "duplicate_filled_line_chars": share(chars, characters.lengths - newlines),
        "newlines_per_token": share(newlines, tokens.counts),
    }
