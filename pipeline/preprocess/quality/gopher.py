"""What Gopher's rules of quality and repetition look at."""

from __future__ import annotations

import numpy as np
import polars as pl

from pipeline.arrays import I64
from pipeline.preprocess.quality.characters import CORE, LETTER, Characters
from pipeline.preprocess.quality.repetition import (
    DUPLICATE,
    TOP,
    duplicate_ngram_chars,
    repeated_ngrams,
    top_ngram_chars,
)
from pipeline.preprocess.quality.segments import (
    Segments,
    count_lines,
    count_repeats,
    edge_newlines,
    find_paragraphs,
    first_and_last,
)
from pipeline.preprocess.quality.shares import share
from pipeline.preprocess.quality.tokens import Tokens, hash_word

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")
_BULLETS = [ord(mark) for mark in "•-"]
_ELLIPSIS = ord("…")
_DOT = ord(".")


def measure_repetition(characters: Characters, lines: Segments, tokens: Tokens) -> dict[str, pl.Series]:
    """Shares of lines, paragraphs and characters. Lines are what lies between runs of newlines, paragraphs what lies
    between runs of two or more in a text less the space at its ends."""
    texts, length = characters.texts, characters.lengths
    paragraphs = find_paragraphs(characters)
    repeats, chars = count_repeats(characters, paragraphs)
    measures = {
        "duplicate_paragraphs": share(repeats, np.maximum(np.bincount(paragraphs.owners, minlength=texts), 1)),
        "duplicate_paragraph_chars": share(chars, length),
    }
    at_start, at_end = edge_newlines(characters)
    repeats, chars = count_repeats(characters, lines)
    count = np.bincount(lines.owners, minlength=texts) + at_start + at_end
    measures["duplicate_lines"] = share(repeats + (at_start & at_end), np.maximum(count, 1))
    measures["duplicate_line_chars"] = share(chars, length)
    for repeated in repeated_ngrams(tokens, max(DUPLICATE)):
        if repeated.n in TOP:
            measures[f"top_{repeated.n}_gram"] = share(top_ngram_chars(tokens, repeated), length)
        if repeated.n in DUPLICATE:
            measures[f"duplicate_{repeated.n}_grams"] = share(duplicate_ngram_chars(tokens, repeated), length)
    return measures


def measure_quality(texts: pl.Series, characters: Characters, lines: Segments, tokens: Tokens) -> dict[str, pl.Series]:
    """Counts and shares of words (tokens that are not marks alone), tokens and lines (the empty ones too)."""
    owners = tokens.owners
    is_word = (tokens.bits & CORE) != 0
    words = np.bincount(owners[is_word], minlength=characters.texts)
    word_chars = np.bincount(owners, weights=np.where(is_word, tokens.lengths, 0), minlength=characters.texts)
    with_letters = np.bincount(owners[(tokens.bits & LETTER) != 0], minlength=characters.texts)
    ellipses = texts.str.count_matches("...", literal=True) + texts.str.count_matches("…", literal=True)
    filled, first, last = first_and_last(characters, lines)
    codes, all_lines = characters.codes, count_lines(characters)
    is_bullet = np.isin(codes[first], _BULLETS)
    dots = (codes == _DOT)[last[:, None] - np.arange(3)].all(axis=1) & (last - filled.starts >= 2)
    is_cut = dots | (codes[last] == _ELLIPSIS)
    return {
        "words": pl.Series(words),
        "mean_word_length": share(word_chars, words),
        "hashes_per_token": share(characters.count(np.flatnonzero(codes == ord("#"))), tokens.counts),
        "ellipses_per_token": share(ellipses.to_numpy(), tokens.counts),
        "bullet_lines": share(filled.per_text(is_bullet, characters.texts), all_lines),
        "ellipsis_lines": share(filled.per_text(is_cut, characters.texts), all_lines),
        "tokens_with_letters": share(with_letters, tokens.counts),
        "stop_words": pl.Series(_stop_words(tokens, owners, characters.texts)),
    }


def _stop_words(tokens: Tokens, owners: I64, texts: int) -> I64:
    """(texts,) how many of the stop words stand in each."""
    short = np.flatnonzero(tokens.lengths <= max(map(len, STOP_WORDS)))
    hashes, owners = tokens.hashes[short], owners[short]
    counts = np.zeros(texts, dtype=np.int64)
    for word in STOP_WORDS:
        there = np.zeros(texts, dtype=bool)
        there[owners[hashes == hash_word(word)]] = True
        counts += there
    return counts
