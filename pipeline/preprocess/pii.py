"""Personal data that can be told by its form: mail addresses, public IP addresses, phone numbers."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl


def mask(texts: pl.Series, kinds: Sequence[str]) -> tuple[pl.Series, dict[str, int]]:
    """The texts with personal data replaced, and how many of each kind were.

    Args:
        texts: String.
        kinds: names in `pipeline.params.PII_KINDS`: `email`, `ip`, `phone`.

    Returns:
        The texts, and for each of `kinds` the number of replacements.
    """
    raise NotImplementedError
