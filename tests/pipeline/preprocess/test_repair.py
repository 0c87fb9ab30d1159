# ruff: noqa: RUF001  (the letters that are ambiguous are the point)
"""Mojibake is put right as ftfy does it, and ftfy is asked for nothing else."""

import unicodedata

import polars as pl
import pytest
from ftfy import TextFixerConfig, fix_text
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.preprocess.repair import _COMPOSABLE, repair, suspect

ONLY_ENCODING = TextFixerConfig(
    **{
        name: False
        for name in TextFixerConfig._fields
        if isinstance(TextFixerConfig._field_defaults[name], bool) and name.startswith(("fix_", "uncurl", "remove"))
    }
    | {"fix_encoding": True, "fix_c1_controls": True, "unescape_html": False}
)


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        ("cafÃ© au lait", "café au lait"),
        ("plain\nsÃ³ quebrado\nplain", "plain\nsó quebrado\nplain"),
        ("doesnâ€™t", "doesn’t"),
        ("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет"),
        ("e\u0301 ﬁ “quoted” &amp; ½ ＬＯＵＤ \x1b[1m", "é ﬁ “quoted” &amp; ½ ＬＯＵＤ \x1b[1m"),
        ("Привет, мир; café; 日本語", "Привет, мир; café; 日本語"),
        ("", ""),
    ],
)
def test_known_cases(broken: str, whole: str) -> None:
    assert repair(pl.Series([broken])).to_list() == [whole]


def test_nulls_and_names_stay() -> None:
    assert repair(pl.Series("t", ["Ã©", None, "a"])).equals(pl.Series("t", ["é", None, "a"]), check_names=True)


MARKS = st.sampled_from(sorted({*"".join(MOJIBAKE_CATEGORIES.values()), *"ÃÂâàœŒĀā×√≈‚вЂаБΒβ€ \n\t\x1caZ.½"}))
TEXTS = st.one_of(
    st.text(max_size=30),
    st.text(MARKS, max_size=8),
    st.builds(
        lambda text, codec: text.encode().decode(codec, "replace"),
        st.text("aé ñüß—’“”…日本語абвαβγ😀\n", max_size=12),
        st.sampled_from(["latin-1", "windows-1252", "windows-1251", "macroman", "iso-8859-2", "cp437"]),
    ),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS, min_size=15, max_size=30))
def test_the_same_as_ftfy_on_every_text(texts: list[str]) -> None:
    expected = [fix_text(unicodedata.normalize("NFC", text), ONLY_ENCODING) for text in texts]
    assert repair(pl.Series(texts)).to_list() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, min_size=15, max_size=30))
def test_ftfy_is_asked_about_all_that_it_finds_bad_and_about_no_ascii(texts: list[str]) -> None:
    for text, suspected in zip(texts, pl.Series(texts).str.contains(suspect()), strict=True):
        assert suspected or not any(BADNESS_RE.search(line) for line in text.split("\n"))
        assert not (suspected and text.isascii())


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=0x7F)))
def test_ascii_is_nothing_to_repair(text: str) -> None:
    assert fix_text(unicodedata.normalize("NFC", text), ONLY_ENCODING) == text


def test_what_is_taken_for_composed_neither_changes_nor_joins() -> None:
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    texts = pl.Series(list(map(chr, points)))
    settled = set(texts.filter(~texts.str.contains(_COMPOSABLE)))
    assert {"a", "é", "“", "—", "…", "я", "ή", "世", "の", "한", "😀"} <= settled
    seconds = set()
    for character in texts:
        parts = unicodedata.decomposition(character).split()
        if parts and not parts[0].startswith("<"):
            assert character not in settled or len(parts) == 2, "a singleton changes"
            seconds.update(chr(int(part, 16)) for part in parts[1:])
    assert not settled & seconds
    assert not settled & set(map(chr, range(0x1100, 0x1200))), "Jamo join by rule"
    assert not any(unicodedata.combining(character) for character in settled)
    assert all(unicodedata.is_normalized("NFC", character) for character in settled)


def test_the_texts_given_are_left_alone() -> None:
    texts = pl.Series(["Ã©", "e\u0301"])
    repair(texts)
    assert texts.to_list() == ["Ã©", "e\u0301"]
