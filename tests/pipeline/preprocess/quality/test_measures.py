# ruff: noqa: RUF001  (the marks that are ambiguous are the point)
"""The measures against their definitions, on texts of every odd kind."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.preprocess.quality import measure, measures, rewrite
from tests.pipeline.preprocess.quality import oracle

PIECES = [
    *["the", "be", "of", "have", "a", "b", "word", "naïve", "don't", "Don’t", "we'll", "it's", "can't.", "'s", "n't"],
    *[
        "...",
        "..",
        "…",
        ".",
        "#",
        "-",
        "- ",
        "•",
        "–",
        "!",
        "?",
        '"',
        "'",
        "{",
        "[1]",
        "[edit]",
        "(",
        ")",
        "/",
        "=>",
        "@",
    ],
    *[
        "a-b",
        "x=y",
        "3.14",
        "1-2",
        "foo.bar(x)",
        "--all",
        "日本語",
        "。",
        "é",
        "e\u0301",
        "😀",
        "\u200b",
        "\x1c",
        "\u2028",
    ],
    *[
        " ",
        " ",
        " ",
        "\t",
        "\u00a0",
        "\n",
        "\n",
        "\n\n",
        "\n \n",
        "lorem ipsum",
        "JavaScript",
        "Privacy policy",
        "A b c.",
    ],
]
ODD = [
    "",
    " ",
    "\n",
    "\n\n\n",
    "a",
    ".",
    "...",
    "#",
    "日本",
    "\na\n",
    "\n\na\nb\n\na\n",
    "-",
    "’",
    "'",
    "n't",
    "a'",
    "don't",
]
ODD += [
    "word " * 400,
    "日本語" * 300,
    "x" * 1001 + " y z.",
    "a b c d e f\n" * 30,
    "." * 300,
    "- a\n" * 5,
    "can't.\x1cA b c.",  # white space to Python, not to Unicode
    "A" * 70 + "\n" * 3,
]


def phrases() -> list[str]:
    """Texts that repeat lines and n-grams, in part."""
    random.seed(0)
    texts = []
    for _ in range(40):
        words = random.choices(["the", "be", "cat", "sat,", "on", "a", "mat.", "x-y"], k=random.randint(1, 7))
        lines = [" ".join(random.choices(words, k=random.randint(1, 14))) for _ in range(random.randint(1, 4))]
        texts.append(random.choice(["\n", "\n\n", " "]).join(random.choices(lines, k=random.randint(1, 12))))
    return texts


def check(preset: str, texts: list[str]) -> None:
    """Compare the measures of the texts, taken together, with the oracle's."""
    series = pl.Series("text", texts, dtype=pl.String)
    found = measure(rewrite(series, [preset]), [preset])
    expected = [getattr(oracle, preset)(text) for text in texts]
    assert found.height == len(texts)
    for name in found.columns:
        for text, value, wanted in zip(texts, found[name], (row[name] for row in expected), strict=True):
            assert value == (wanted if wanted is None else pytest.approx(wanted, rel=1e-12)), (name, text)


@pytest.mark.parametrize("preset", ["gopher", "c4", "fineweb", "code"])
def test_odd_texts_and_repeated_phrases(preset: str) -> None:
    check(preset, ODD + phrases())


@pytest.mark.parametrize("preset", ["gopher", "c4", "fineweb", "code"])
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=6), max_size=10))
def test_random_texts(preset: str, texts: list[str]) -> None:
    check(preset, texts)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), max_size=8))
def test_what_c4_keeps(texts: list[str]) -> None:
    found = rewrite(pl.Series("text", texts, dtype=pl.String), ["c4"])
    assert found.to_list() == [oracle.c4_lines(text) for text in texts]
    assert rewrite(pl.Series(texts, dtype=pl.String), ["gopher", "code"]).to_list() == texts


def test_a_text_measures_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series(ODD + phrases())
    presets = ["gopher", "c4", "fineweb", "code"]
    together = measure(texts, presets)
    monkeypatch.setattr(measures, "BATCH", 50)
    assert measure(texts, presets).equals(together)
    alone = pl.concat([measure(texts[i : i + 1], presets) for i in range(len(texts))])
    assert alone.equals(together)


def test_measures_of_several_presets_are_taken_once() -> None:
    both = measure(pl.Series(["a b c."]), ["fineweb", "gopher"])
    assert len(both.columns) == len(set(both.columns))
    assert set(both.columns) == {*oracle.gopher("a"), *oracle.fineweb("a")}
    assert measure(pl.Series([], dtype=pl.String), ["gopher", "code"]).height == 0
