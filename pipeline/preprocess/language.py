"""Language identification with a fastText model that the user brings."""

from __future__ import annotations

from pathlib import Path

import polars as pl


def identify(texts: pl.Series, model_file: Path) -> pl.DataFrame:
    """`language` (String: the likeliest label, less `__label__`; null for a blank text) and `language_score`
    (Float64, its probability) of each text.

    Args:
        texts: String.
        model_file: a fastText model with supervised labels, such as lid.176.bin, lid.176.ftz or GlotLID's.

    Raises:
        ValueError: the package fasttext is not installed, or the file is no such model.
    """
    raise NotImplementedError
