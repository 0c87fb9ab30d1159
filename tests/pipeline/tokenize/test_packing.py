"""Plans of rows against their definitions, over random lengths."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pipeline.tokenize.packing import Piece, cut, fit


@pytest.mark.parametrize("seqlen", [2, 3, 8, 33])
def test_cut_predicts_each_token_but_the_first_once(seqlen: int) -> None:
    rng = np.random.default_rng(seqlen)
    for _ in range(50):
        lengths = rng.integers(2, 4 * seqlen, size=rng.integers(1, 20))
        order = rng.permutation(len(lengths)).tolist()
        rows = list(cut(lengths, order, seqlen))
        used = [sum(piece.stop - piece.start for piece in row) for row in rows]
        assert used[:-1] == [seqlen] * (len(rows) - 1)
        assert 0 < used[-1] <= seqlen
        predicted = [(p.record, token) for row in rows for p in row for token in range(p.start + 1, p.stop)]
        assert predicted == [(record, token) for record in order for token in range(1, lengths[record])]


def test_cut_by_hand() -> None:
    rows = list(cut(np.array([3, 6]), [0, 1], 4))
    assert rows == [[Piece(0, 0, 3), Piece(1, 0, 1)], [Piece(1, 0, 4)], [Piece(1, 3, 6)]]
    assert list(cut(np.array([4]), [0], 4)) == [[Piece(0, 0, 4)]]


def best_fit_decreasing(lengths: list[int], seqlen: int) -> list[list[int]]:
    """The definition, in quadratic time: among the rows with the least sufficient room, the last that came to it."""
    rows: list[list[int]] = []
    rooms: list[int] = []
    touched: list[int] = []
    for step, record in enumerate(sorted(range(len(lengths)), key=lambda record: (-lengths[record], record))):
        enough = [row for row, room in enumerate(rooms) if room >= lengths[record]]
        if not enough:
            enough = [len(rows)]
            rows.append([])
            rooms.append(seqlen)
            touched.append(step)
        row = min(enough, key=lambda row: (rooms[row], -touched[row]))
        rows[row].append(record)
        rooms[row] -= lengths[record]
        touched[row] = step
    return sorted(sorted(row) for row in rows)


@pytest.mark.parametrize("seqlen", [1, 4, 16, 100])
def test_fit_is_best_fit_decreasing(seqlen: int) -> None:
    rng = np.random.default_rng(seqlen)
    for size in (0, 1, 2, 10, 60):
        lengths = rng.integers(1, seqlen + 1, size=size)
        rows = fit(lengths, seqlen)
        assert rows == best_fit_decreasing(lengths.tolist(), seqlen)
        assert sorted(record for row in rows for record in row) == list(range(size))
        assert all(lengths[row].sum() <= seqlen for row in rows)


def test_fit_wastes_little_and_takes_no_quadratic_time() -> None:
    lengths = np.random.default_rng(0).integers(10, 400, size=100_000)
    start = time.process_time()
    rows = fit(lengths, 512)
    assert time.process_time() - start < 5
    assert lengths.sum() / (len(rows) * 512) > 0.98
