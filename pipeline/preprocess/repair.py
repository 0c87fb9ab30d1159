"""Mojibake: UTF-8 that was once read as another encoding (`Ã©` for `é`), put right with ftfy."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import polars as pl

_SETTLED = (
    r"\x{388}-\x{482}\x{48A}-\x{590}"  # Greek, Cyrillic, Armenian
    r"\x{2002}-\x{20CF}\x{2100}-\x{2125}\x{2190}-\x{2328}\x{232B}-\x{2ADB}"  # punctuation, symbols
    r"\x{3001}-\x{3029}\x{3030}-\x{3098}\x{309B}-\x{A48F}\x{AC00}-\x{D7A3}"  # Kana, Han, Hangul
    r"\x{1F000}-\x{1FAFF}"  # emoji
)
_COMPOSABLE = rf"[\x{{300}}-\x{{10FFFF}}--[{_SETTLED}]]"
"""NFC leaves a text without any of these as it is: what is below and what is settled neither changes nor joins."""


def repair(texts: pl.Series) -> pl.Series:
    """The texts in Unicode NFC with mojibake undone: what ftfy's `fix_text` gives with its other repairs off.

    Nothing but the encoding is repaired: quotes stay curled, ligatures and HTML entities stay as they are. ftfy sees
    only the texts in which it would find something; the others, among them all of ASCII alone, it would give back.
    """
    is_beyond_ascii = texts.str.len_bytes() > texts.str.len_chars()
    return change(texts, is_beyond_ascii, _repair)


def _repair(texts: pl.Series) -> pl.Series:
    texts = change(texts, texts.str.contains(_COMPOSABLE), lambda found: found.str.normalize("NFC"))
    return change(texts, texts.str.contains(suspect()), _fix)


def _fix(texts: pl.Series) -> pl.Series:
    from ftfy import TextFixerConfig, fix_text  # takes a while, which ASCII does without

    encoding_only = TextFixerConfig(
        unescape_html=False,
        remove_terminal_escapes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        uncurl_quotes=False,
        fix_line_breaks=False,
        fix_surrogates=False,
        remove_control_chars=False,
        normalization="NFC",
        explain=False,
    )
    return pl.Series([fix_text(text, encoding_only) for text in texts])


def change(texts: pl.Series, chosen: pl.Series, function: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """The texts with those that are chosen changed, by one call of the function on all of them."""
    rows = chosen.fill_null(False).arg_true()
    return texts.clone().scatter(rows, function(texts.gather(rows))) if len(rows) else texts


@cache
def suspect() -> str:
    """ftfy's pattern of mojibake, a little wider, in the syntax of Polars.

    ftfy judges line by line, and writes its pattern with spaces and comments, which count in Python's character
    classes but not in Rust's. Control characters are spaces in Python, and numerals are word characters.
    """
    from ftfy.badness import BADNESS_RE

    pattern = re.sub(r"(?m)#.*$", "", BADNESS_RE.pattern)
    pieces = re.findall(r"\[(?:\\.|[^\]\\])*\]|\\.|\S", pattern)
    wider = {r"\s": r"[\s\x1c-\x1f]", r"\w": r"[\w\p{N}]"}
    return "(?m)" + "".join(wider.get(piece, piece) for piece in pieces)
