"""Count-based baselines over the same tokens: a unigram and an interpolated Kneser-Ney bigram.

Kneser and Ney, "Improved backing-off for m-gram language modeling" (1995), in the interpolated form of Chen and
Goodman (1999), with one absolute discount D:

    P(w | v) = max(c(v w) - D, 0) / c(v .)  +  D N1+(v .) / c(v .)  P1(w)
    P1(w)    = max(N1+(. w) - D, 0) / N1+(. .)  +  D |{w: N1+(. w) > 0}| / N1+(. .)  1 / V

where c counts, N1+(v .) is the number of different followers of v, N1+(. w) of different predecessors of w.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pipeline.rows import Rows
from pipeline.training.loader import in_order

ROWS_AT_A_TIME = 1024


class Unigram:
    """Add-one estimate of each token's frequency."""

    def __init__(self, train: Rows, vocab_size: int) -> None:
        counts = np.ones(vocab_size, dtype=np.int64)
        for _, targets in target_pairs(train):
            counts += np.bincount(targets, minlength=vocab_size)
        self._nats = -np.log(counts / counts.sum())

    def nats(self, rows: Rows) -> float:
        """Negative log-likelihood of all targets of `rows`."""
        return float(sum(self._nats[targets].sum() for _, targets in target_pairs(rows)))


class KneserNeyBigram:
    """Interpolated Kneser-Ney over (token before, token) pairs."""

    def __init__(self, train: Rows, vocab_size: int, discount: float) -> None:
        self._vocab_size, self._discount = vocab_size, discount
        self._pairs, self._counts = _count_pairs(train, vocab_size)
        before, word = np.divmod(self._pairs, vocab_size)
        self._context = np.bincount(before, self._counts, minlength=vocab_size)  # c(v .)
        self._followers = np.bincount(before, minlength=vocab_size)  # N1+(v .)
        predecessors = np.bincount(word, minlength=vocab_size)  # N1+(. w)
        kinds = len(self._pairs)  # N1+(. .)
        left_over = discount * np.count_nonzero(predecessors) / kinds
        self._lower = np.maximum(predecessors - discount, 0) / kinds + left_over / vocab_size  # P1(w)

    def probabilities(self, before: np.ndarray, word: np.ndarray) -> np.ndarray:
        """P(word | before), elementwise; a context that was never seen leaves P1."""
        keys = before.astype(np.int64) * self._vocab_size + word
        at = np.minimum(np.searchsorted(self._pairs, keys), len(self._pairs) - 1)
        counts = np.where(self._pairs[at] == keys, self._counts[at], 0)
        context = self._context[before]
        known = context > 0
        context = np.where(known, context, 1.0)
        higher = np.maximum(counts - self._discount, 0) / context
        weight = np.where(known, self._discount * self._followers[before] / context, 1.0)
        return higher + weight * self._lower[word]

    def nats(self, rows: Rows) -> float:
        """Negative log-likelihood of all targets of `rows`."""
        return float(sum(-np.log(self.probabilities(*pair)).sum() for pair in target_pairs(rows)))


def target_pairs(rows: Rows) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(token before, token) for every supervised token, block by block: what a language model is asked to predict."""
    for indices in in_order(len(rows), ROWS_AT_A_TIME):
        batch = rows.batch(indices)
        targets = batch.labels[:, 1:]
        supervised = targets >= 0
        yield batch.input_ids[:, :-1][supervised], targets[supervised]


def _count_pairs(rows: Rows, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The different pairs as sorted keys `before * vocab_size + word`, and how often each occurs."""
    pairs, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    for before, word in target_pairs(rows):
        new, new_counts = np.unique(before * vocab_size + word, return_counts=True)
        pairs, where = np.unique(np.concatenate([pairs, new]), return_inverse=True)
        counts = np.bincount(where, np.concatenate([counts, new_counts])).astype(np.int64)
    return pairs, counts
