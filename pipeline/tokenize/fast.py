"""Whether gigatoken makes the ids of Hugging Face's `tokenizers`, which is what it takes to be used."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import polars as pl

from pipeline.chat.tokenizer import Tokenizer
from pipeline.tokenize.converted import AWKWARD

ONE_IN = 256
"""The first of so many texts of a shard is in the sample, as far as `CHARACTERS` go."""
CHARACTERS = 1 << 13


def awkward_text_that_differs(fast: Tokenizer) -> str | None:
    """Of the awkward texts and the names of the control tokens, the first of which it makes other ids."""
    names = [token.content for token in fast.backend.get_added_tokens_decoder().values()]
    return _first_that_differs(fast, list(chain(AWKWARD, (f"a {name} b{name}" for name in names))))


def sampled_text_that_differs(fast: Tokenizer, texts: pl.Series) -> str | None:
    """The same of a sample of the texts of a shard."""
    return _first_that_differs(fast, texts.gather_every(ONE_IN).str.head(CHARACTERS).to_list())


def _first_that_differs(fast: Tokenizer, texts: Sequence[str]) -> str | None:
    for text, ours, theirs in zip(texts, fast.encode(texts), fast.plain().encode(texts), strict=True):
        if ours != theirs:
            return text
    return None
