"""Whether the fast encoder may be used: only if it makes the ids of Hugging Face's `tokenizers`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import polars as pl

from pipeline.chat.tokenizer import Tokenizer
from pipeline.tokenize.converted import AWKWARD

ONE_IN = 128
"""Texts of each shard, the first of which is encoded twice, as far as `CHARACTERS` go."""
CHARACTERS = 1 << 14


def why_not_fast(tokenizer: Tokenizer) -> str | None:
    """Why the ids are to be made by `tokenizers`; None where gigatoken takes `tokenizer` and makes the same.

    Awkward texts and the names of the tokenizer's control tokens are tried.
    """
    try:
        fast = tokenizer.accelerated()
    except ValueError as error:
        return str(error)
    names = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
    return _difference(fast, list(chain(AWKWARD, (f"a {name} b{name}" for name in names))))


def why_not_for(fast: Tokenizer, texts: pl.Series) -> str | None:
    """The same for the texts of a shard, of which a sample is tried.

    Args:
        fast: an accelerated one.
    """
    return _difference(fast, texts.gather_every(ONE_IN).str.head(CHARACTERS).to_list())


def _difference(fast: Tokenizer, texts: Sequence[str]) -> str | None:
    for text, ours, theirs in zip(texts, fast.encode(texts), fast.plain().encode(texts), strict=True):
        if ours != theirs:
            return f"gigatoken makes other ids of {text[:60]!r}"
    return None
