"""N-grams of words against slices of lists."""

import random

import numpy as np
import polars as pl
import pytest

from pipeline.preprocess.words import ngram_hashes, words


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


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5, 13])
def test_equal_hashes_are_equal_ngrams(n: int, whole: bool) -> None:
    rng = random.Random(n)
    lists = [[rng.choice("ab") for _ in range(rng.randrange(20))] for _ in range(100)]
    hashes, offsets = ngram_hashes(pl.Series(lists, dtype=pl.List(pl.String)), n, whole=whole)
    expected = []
    for number, own in enumerate(lists):
        grams = [tuple(own[start : start + n]) for start in range(len(own) - n + 1)]
        grams = grams or ([tuple(own)] if whole and own else [])
        assert offsets[number + 1] - offsets[number] == len(grams)
        expected += grams
    assert len(hashes) == len(expected)
    assert len(set(hashes.tolist())) == len(set(expected)) == len(set(zip(hashes.tolist(), expected, strict=True)))


def test_hashes_do_not_hang_on_what_stands_before() -> None:
    lists = pl.Series([["a", "b"] * 50, ["a", "b", "a"], [], ["a", "b", "a"]])
    hashes, offsets = ngram_hashes(lists, 3, whole=False)
    assert hashes[offsets[1]] == hashes[offsets[3]] == hashes[0]
    assert np.array_equal(np.unique(hashes[: offsets[1]]), np.unique(hashes[:2]))


def test_no_words_at_all() -> None:
    hashes, offsets = ngram_hashes(words(pl.Series(["", "."])), 5, whole=True)
    assert len(hashes) == 0
    assert offsets.tolist() == [0, 0, 0]
