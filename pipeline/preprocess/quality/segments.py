"""Lines and paragraphs, and how much of a text they repeat."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.arrays import I64, Bools
from pipeline.preprocess.hashes import mix
from pipeline.preprocess.quality.characters import NEWLINE, Characters


@dataclass(frozen=True)
class Segments:
    """Stretches of characters, each within a text, in order; `owners` has the text of each."""

    starts: I64
    ends: I64
    owners: I64

    def pick(self, chosen: Bools) -> Segments:
        """Those that the flags choose."""
        return Segments(self.starts[chosen], self.ends[chosen], self.owners[chosen])

    def per_text(self, flags: Bools, texts: int) -> I64:
        """(texts,) how many of the flags, one for each segment, are set in each text."""
        return np.bincount(self.owners[flags], minlength=texts)


def find_lines(characters: Characters) -> Segments:
    """The lines that are not empty: stretches without a newline."""
    inside = np.concatenate([[False], characters.codes != NEWLINE])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    starts, ends = edges[::2], edges[1::2]
    return Segments(starts, ends, characters.owners(starts))


def find_paragraphs(characters: Characters) -> Segments:
    """What two or more newlines keep apart, in texts less the white space at their ends; a blank text has none."""
    every = Segments(characters.starts, characters.ends, np.arange(characters.texts))
    _, first, last = first_and_last(characters, every)
    newline = np.concatenate([[False], characters.codes == NEWLINE, [False]])
    edges = np.flatnonzero(newline[1:] != newline[:-1])
    gap_starts, gap_ends = edges[::2], edges[1::2]
    text = np.searchsorted(first, gap_starts, side="right") - 1
    is_break = (gap_ends - gap_starts >= 2) & (text >= 0)
    is_break[is_break] = gap_ends[is_break] <= last[text[is_break]] + 1
    starts = np.sort(np.concatenate([first, gap_ends[is_break]]))
    ends = np.sort(np.concatenate([last + 1, gap_starts[is_break]]))
    return Segments(starts, ends, characters.owners(starts))


def count_repeats(characters: Characters, segments: Segments) -> tuple[I64, I64]:
    """(texts,) the segments that stood in their text before, and the characters in them."""
    if not len(segments.starts):
        none = np.zeros(characters.texts, dtype=np.int64)
        return none, none
    hashes = characters.hashes(segments.starts, segments.ends)
    keys = mix(hashes + segments.owners.astype(np.uint64))
    order = np.argsort(keys)
    in_order = keys[order]
    repeats = order[1:][in_order[1:] == in_order[:-1]]
    owners, sizes = segments.owners[repeats], (segments.ends - segments.starts)[repeats]
    count = np.bincount(owners, minlength=characters.texts)
    return count, np.bincount(owners, weights=sizes, minlength=characters.texts).astype(np.int64)


def first_and_last(characters: Characters, segments: Segments) -> tuple[Segments, I64, I64]:
    """The segments that are not blank, and the places of the first and last characters in each that are no space."""
    filled = characters.filled
    first, end = np.searchsorted(filled, segments.starts), np.searchsorted(filled, segments.ends)
    has_words = end > first
    return segments.pick(has_words), filled[first[has_words]], filled[end[has_words] - 1]


def count_lines(characters: Characters) -> I64:
    """(texts,) lines, the empty ones too; a newline at the end starts no other."""
    has_text = characters.lengths > 0
    return count_newlines(characters) + (has_text & (characters.codes[characters.ends - 1] != NEWLINE))


def count_newlines(characters: Characters) -> I64:
    """(texts,) newlines in each."""
    return characters.count(np.flatnonzero(characters.codes == NEWLINE)) - 1  # less the one between texts


def edge_newlines(characters: Characters) -> tuple[Bools, Bools]:
    """(texts,) whether each text starts, and whether it ends, with a newline."""
    has_text = characters.lengths > 0
    starts = has_text & (characters.codes[characters.starts] == NEWLINE)
    ends = has_text & (characters.codes[characters.ends - 1] == NEWLINE)
    return starts, ends
