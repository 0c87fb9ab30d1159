"""Mojibake: UTF-8 that was once read as another encoding (`Ã©` for `é`), put right with ftfy."""

from __future__ import annotations

import polars as pl


def repair(texts: pl.Series) -> pl.Series:
    """The texts in Unicode NFC with mojibake undone: what ftfy's `fix_text` gives with its other repairs off.

    Nothing but the encoding is repaired: quotes stay curled, ligatures and HTML entities stay as they are.
    """
    raise NotImplementedError
