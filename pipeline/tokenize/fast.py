"""Whether the fast encoder may be used: only if it makes the ids of Hugging Face's `tokenizers`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from pipeline.chat.tokenizer import Tokenizer
from pipeline.tokenize.converted import AWKWARD

SAMPLE_BYTES = 10**6
"""Evenly spaced records of about this size in all are encoded twice."""


def why_not_fast(tokenizer: Tokenizer, texts: Iterable[str]) -> str | None:
    """Why the ids are to be made by `tokenizers`; None where gigatoken makes the same.

    Args:
        texts: a sample of what is to be encoded; the names of the tokenizer's control tokens are tried besides.
    """
    try:
        fast = tokenizer.accelerated()
    except ValueError as error:
        return str(error)
    names = [token.content for token in tokenizer.backend.get_added_tokens_decoder().values()]
    sample = list(chain(AWKWARD, (f"a {name} b{name}" for name in names), texts))
    for text, ours, theirs in zip(sample, fast.encode(sample), tokenizer.encode(sample), strict=True):
        if ours != theirs:
            return f"gigatoken makes other ids of {text[:60]!r}"
    return None
