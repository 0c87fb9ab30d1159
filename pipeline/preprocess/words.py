"""The words that near duplicates and decontamination compare, spelled and as hashes.

A word is a run of letters, digits, marks and underscores, in lower case; where a script has no spaces between words
(Chinese, Japanese, Thai, ...) each of its characters is one. Punctuation and spacing do not count. (The tokens of the
quality rules are others: quality/tokens.py.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from pipeline.arrays import I64, U64
from pipeline.preprocess.hashes import mix, string_hashes
from pipeline.preprocess.unicode import CharacterClasses

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = rf"[{_UNSPACED}]|[\w--{_UNSPACED}]+"

_PART, _ALONE = 1, 2
_CLASSES = CharacterClasses({_PART: rf"[\w--{_UNSPACED}]", _ALONE: rf"[{_UNSPACED}]"})
"""What is part of a word, and what is a word alone."""

_BLANK, _BEYOND_ASCII = 0, 0x80
_BLANKED = bytes(code if chr(code).isalnum() or chr(code) == "_" else _BLANK for code in range(_BEYOND_ASCII)) + bytes(
    range(_BEYOND_ASCII, 256)
)
"""Blank for each byte that is an ASCII character of no word."""

_PIECE = 1 << 18
"""Bytes whose words are found and hashed at a time; a longer text is alone."""
_LOAD = 8
"""Bytes of a word that are hashed at once."""
_FIRST_BYTES = np.array([(1 << 8 * count) - 1 for count in range(_LOAD + 1)], dtype=np.uint64)
"""Of a load, the mask of its first 0, 1, ... bytes."""
_LONG = 64
"""Longer words (in bytes) are hashed one by one."""


def words(texts: pl.Series) -> pl.Series:
    """The words of each text: list of str."""
    return texts.str.to_lowercase().str.extract_all(_WORD)


def word_hashes(texts: pl.Series) -> tuple[U64, I64]:
    """A hash of each word of all texts, equal where the words are, and how many words each text has, (texts,).

    The texts are looked at as one array of bytes; beside it are the hashes, 8 bytes a word. What is made on the way is
    made a piece at a time.

    Args:
        texts: String without nulls.
    """
    lower = texts.str.to_lowercase()
    joined = lower.str.join("\n").cast(pl.Binary).item() if len(lower) else b""
    blanks = np.append(0, np.cumsum(lower.str.len_bytes().to_numpy().astype(np.int64) + 1))  # around each text
    text = np.frombuffer(bytearray(b"\n" + joined + b"\n" * _LOAD).translate(_BLANKED), dtype=np.uint8)
    hashes, counts = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    first = 0
    while first < len(texts):
        last = max(first + 1, int(np.searchsorted(blanks, blanks[first] + _PIECE, side="right")) - 1)
        own = blanks[first : last + 1] - blanks[first]
        piece = text[blanks[first] : blanks[last] + _LOAD]
        within = piece[: own[-1] + 1]
        starts, ends = _bounds(within, _blank_beyond_ascii(within))
        hashes.append(_hash(piece, starts, ends - starts))
        counts.append(np.diff(np.searchsorted(starts, own)))
        first = last
    return np.concatenate(hashes), np.concatenate(counts)


def _blank_beyond_ascii(text: np.ndarray[Any, np.dtype[np.uint8]]) -> I64:
    """Blank the characters beyond ASCII that are of no word; where the words that are characters start and end."""
    places = np.flatnonzero(text >= _BEYOND_ASCII)
    if not len(places):
        return places
    codes = np.frombuffer(text[places].tobytes().decode().encode("utf-32-le"), dtype=np.uint32)
    kinds = _CLASSES.of(codes)
    sizes = 2 + (codes >= 0x800) + (codes >= 0x10000)  # bytes of each in UTF-8
    text[places[np.repeat(kinds == 0, sizes)]] = _BLANK
    last = np.cumsum(sizes) - 1
    is_alone = kinds == _ALONE
    return np.unique(np.concatenate([places[(last - sizes + 1)[is_alone]], places[last[is_alone]] + 1]))


def _bounds(text: np.ndarray[Any, np.dtype[np.uint8]], cuts: I64) -> tuple[I64, I64]:
    """Where the words start and end: runs that are not blank, cut where `cuts` says."""
    filled = text != _BLANK
    edges = np.flatnonzero(filled[1:] != filled[:-1]) + 1
    if len(cuts):
        inner = cuts[filled[cuts] & filled[cuts - 1]]
        edges = np.sort(np.concatenate([edges, inner, inner]))
    return edges[::2], edges[1::2]


def _hash(text: np.ndarray[Any, np.dtype[np.uint8]], starts: I64, lengths: I64) -> U64:
    """A word's bytes are loaded eight at a time; up to eight make a number that no other word makes."""
    loads = np.ndarray((len(text) - _LOAD + 1,), dtype="<u8", buffer=text, strides=(1,))
    hashes = mix(loads[starts] & _FIRST_BYTES[np.minimum(lengths, _LOAD)])
    left = np.flatnonzero(lengths > _LOAD)
    long, left = left[lengths[left] > _LONG], left[lengths[left] <= _LONG]
    done = _LOAD
    while len(left):
        load = loads[starts[left] + done] & _FIRST_BYTES[np.minimum(lengths[left] - done, _LOAD)]
        hashes[left] = mix(hashes[left] ^ load)
        done += _LOAD
        left = left[lengths[left] > done]
    if len(long):
        spelled = [text[starts[word] : starts[word] + lengths[word]].tobytes().decode() for word in long]
        hashes[long] = string_hashes(pl.Series(spelled))
    return hashes
