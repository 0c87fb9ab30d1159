"""Hashes of words against their spelling, and of n-grams against slices of lists."""

import random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.preprocess.ngrams import ngram_hashes
from pipeline.preprocess.words import word_hashes, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World! don't", ["hello", "world", "don", "t"]),
        ("", []),
        (" \n--…", []),
        ("x_1 = f(y2)", ["x_1", "f", "y2"]),
        ("世界 abc日本", ["世", "界", "abc", "日", "本"]),
        ("Straße École", ["straße", "école"]),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(pl.Series([text])).to_list() == [expected]


PIECES = st.one_of(
    st.sampled_from(
        ["a", "Ab", "_", "9", " ", "\n", "\0", "-", "…", "é", "e\u0301", "İ", "ΑΣ", "世", "ก", "あ", "𠀀", "😀"]
    ),
    st.integers(7, 66).map("x".__mul__),
    st.text(max_size=4),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXTS, max_size=8))
def test_hashes_of_words_are_equal_where_the_words_are(texts: list[str]) -> None:
    series = pl.Series(texts, dtype=pl.String)
    hashes, counts = word_hashes(series)
    spelled = words(series)
    assert counts.tolist() == spelled.list.len().to_list()
    flat = spelled.explode(empty_as_null=False).to_list()
    assert len(hashes) == len(flat)
    assert len(set(hashes.tolist())) == len(set(flat)) == len(set(zip(hashes.tolist(), flat, strict=True)))


def test_hashes_of_words_hang_on_every_byte_and_on_their_order() -> None:
    for size in (1, 7, 8, 9, 16, 17, 63, 64, 65, 200):
        word = [chr(97 + place % 26) for place in range(size)]
        others = [[*word[:place], "0", *word[place + 1 :]] for place in range(size)]
        swapped = [[*word[: size // 2], *word[size // 2 :][::-1]], word[:-1], [*word, "a"], word[::-1]]
        texts = ["".join(spelled) for spelled in [word, *others, *swapped]]
        hashes, _ = word_hashes(pl.Series([" ".join(texts)]))
        assert len(set(hashes.tolist())) == len(set(texts) - {""})


def random_texts(rng: random.Random) -> tuple[pl.Series, list[list[str]]]:
    lists = [[rng.choice("ab") for _ in range(rng.randrange(20))] for _ in range(100)]
    return pl.Series([" ".join(own) for own in lists]), lists


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_equal_hashes_are_equal_ngrams(n: int, whole: bool) -> None:
    texts, lists = random_texts(random.Random(n))
    hashes, offsets = ngram_hashes(texts, n, whole=whole)
    expected = []
    for number, own in enumerate(lists):
        grams = [tuple(own[start : start + n]) for start in range(len(own) - n + 1)]
        grams = grams or ([tuple(own)] if whole and own else [])
        assert offsets[number + 1] - offsets[number] == len(grams)
        expected += grams
    assert len(hashes) == len(expected)
    assert len(set(hashes.tolist())) == len(set(expected)) == len(set(zip(hashes.tolist(), expected, strict=True)))


def test_hashes_do_not_hang_on_what_stands_before() -> None:
    texts = pl.Series(["a b " * 50, "a b a", "", "a b a"])
    hashes, offsets = ngram_hashes(texts, 3, whole=False)
    assert hashes[offsets[1]] == hashes[offsets[3]] == hashes[0]
    assert np.array_equal(np.unique(hashes[: offsets[1]]), np.unique(hashes[:2]))


@pytest.mark.parametrize("texts", [[], [""], ["", "."]])
def test_no_words_at_all(texts: list[str]) -> None:
    hashes, offsets = ngram_hashes(pl.Series(texts, dtype=pl.String), 5, whole=True)
    assert len(hashes) == 0
    assert offsets.tolist() == [0] * (len(texts) + 1)
