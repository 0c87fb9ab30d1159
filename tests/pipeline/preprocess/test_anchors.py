"""The places that anchors leave to be looked at against a search for every n-gram."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.preprocess.contamination.anchors import anchors, bitmap, candidates, stride, width_for
from pipeline.preprocess.ngrams import ngrams_at, ngrams_of_words


def write_bitmap(path: Path, found: np.ndarray, ranges: int) -> None:
    width = width_for(len(found))
    with path.open("wb") as file:
        for low, high in pairwise(index * 2**64 // ranges for index in range(ranges + 1)):
            own = found[(found >= low) & (found <= high - 1)]
            file.write(bitmap(own, width, low, high).data)


@pytest.mark.parametrize("ranges", [1, 8])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 13])
def test_no_ngram_of_an_evaluation_record_is_missed_and_few_others_are_looked_at(
    tmp_path: Path, n: int, ranges: int
) -> None:
    rng = np.random.default_rng(n)
    words = rng.integers(2**64, size=20_000, dtype=np.uint64)
    evaluation, training = words[:2000], words[2000:].copy()
    planted = np.sort(rng.choice(17_000, 40, replace=False))
    for place in planted:
        length = n + int(rng.integers(20))
        start = int(rng.integers(2000 - length))
        training[place : place + length] = evaluation[start : start + length]
    write_bitmap(tmp_path / "bits", anchors(evaluation, n), ranges)
    known = set(ngrams_of_words(evaluation, np.array([len(evaluation)]), n)[0].tolist())
    every, _ = ngrams_of_words(training, np.array([len(training)]), n)
    expected = [place for place, ngram in enumerate(every.tolist()) if ngram in known]
    found = candidates(tmp_path / "bits", training, n)
    assert (np.diff(found) > 0).all()
    assert set(expected) <= set(found.tolist())
    assert len(expected) >= len(set(planted.tolist()))
    # an anchor is there by chance one time in 8, and all of an n-gram's are; of those that are not whole in a planted
    # run, one on each side is expected less often than one time in 8; 1.5 for the spread
    assert len(found) < len(expected) + 40 * 2 + 1.5 * len(every) / 8 ** stride(n)
    assert np.array_equal(ngrams_at(training, found, n), every[found])


@pytest.mark.parametrize("words", [0, 1, 12])
def test_of_texts_that_are_too_short_nothing_is_looked_at(tmp_path: Path, words: int) -> None:
    hashes = np.arange(words, dtype=np.uint64)
    write_bitmap(tmp_path / "bits", anchors(hashes, 13), 1)
    assert candidates(tmp_path / "bits", hashes, 13).size == 0


def test_a_bitmap_that_is_nearly_full_keeps_most_away_and_misses_none(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    evaluation, training = (
        rng.integers(2**64, size=1 << 16, dtype=np.uint64),
        rng.integers(2**64, size=200_000, dtype=np.uint64),
    )
    training[1000:1100] = evaluation[500:600]
    bitmap(anchors(evaluation, 13), 16, 0, 2**64).tofile(tmp_path / "bits")
    found = candidates(tmp_path / "bits", training, 13)
    assert set(range(1000, 1088)) <= set(found.tolist())
    # with a bit for each, 1 - 1/e of the anchors are there by chance; n-grams side by side share anchors, so that of
    # these 8000 the spread is some 3%
    assert len(found) / len(training) == pytest.approx((1 - np.exp(-1)) ** stride(13), rel=0.1)
