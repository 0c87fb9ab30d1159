"""The n-gram baselines against plain dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from pipeline.evaluate.ngram import KneserNeyBigram, Unigram
from pipeline.rows import NEVER, RESPONSE, Rows

VOCAB = 13


def random_rows(seed: int, count: int = 7, seqlen: int = 40) -> Rows:
    """Rows of several sequences each, over some of the vocabulary only, so that there are unseen words and contexts."""
    random = np.random.default_rng(seed)
    ids = random.zipf(1.5, (count, seqlen)).clip(max=VOCAB - 2 + seed % 2).astype(np.uint16)
    seq_idx = np.sort(random.integers(0, 4, (count, seqlen)), axis=1).astype(np.uint16)
    first = np.diff(seq_idx, axis=1, prepend=-1) != 0
    return Rows(
        input_ids=ids,
        loss_mask=np.where(first, NEVER, RESPONSE).astype(np.uint8),
        seq_idx=seq_idx,
        supervise="response",
    )


def pairs(rows: Rows) -> list[tuple[int, int]]:
    found = []
    for ids, mask in zip(rows.input_ids.tolist(), rows.loss_mask.tolist(), strict=True):
        found += [(ids[i - 1], ids[i]) for i in range(1, len(ids)) if mask[i]]
    return found


def kneser_ney(train: list[tuple[int, int]], discount: float, before: int, word: int) -> float:
    """The formula of the module's docstring, word for word, with counters."""
    count = Counter(train)
    context = Counter(v for v, _ in train)
    followers, predecessors = defaultdict(set), defaultdict(set)
    for v, w in train:
        followers[v].add(w)
        predecessors[w].add(v)
    kinds = len(count)
    lower = max(len(predecessors[word]) - discount, 0) / kinds
    lower += discount * sum(1 for w in predecessors if predecessors[w]) / kinds / VOCAB
    if not context[before]:
        return lower
    higher = max(count[before, word] - discount, 0) / context[before]
    return higher + discount * len(followers[before]) / context[before] * lower


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("discount", [0.1, 0.75])
def test_bigram_equals_the_formula(seed, discount):
    train, test = random_rows(seed), random_rows(seed + 100)
    bigram = KneserNeyBigram(train, VOCAB, discount)
    expected = sum(-math.log(kneser_ney(pairs(train), discount, v, w)) for v, w in pairs(test))
    assert bigram.nats(test) == pytest.approx(expected, rel=1e-12)


def test_bigram_is_a_distribution_in_every_context():
    bigram = KneserNeyBigram(random_rows(0), VOCAB, 0.75)
    for before in range(VOCAB):
        assert bigram.probabilities(np.full(VOCAB, before), np.arange(VOCAB)).sum() == pytest.approx(1, abs=1e-12)


def test_unigram_equals_add_one_counts():
    train, test = random_rows(1), random_rows(2)
    counts = Counter(w for _, w in pairs(train))
    total = sum(counts.values()) + VOCAB
    expected = sum(-math.log((counts[w] + 1) / total) for _, w in pairs(test))
    assert Unigram(train, VOCAB).nats(test) == pytest.approx(expected, rel=1e-12)
