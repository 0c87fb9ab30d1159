"""Plans of rows against their definitions, an optimum by brute force and a plain best fit, over random lengths."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline import mapped
from pipeline.tokenize.cutting import Cut, cut
from pipeline.tokenize.fitting import Fitted, fewest_rows, fit
from pipeline.tokenize.plan import draw_order

Piece = tuple[int, int, int]
"""A record, and the first and the one after the last of its tokens."""


def rows_of(plan: Cut | Fitted, order: np.ndarray | None = None) -> list[list[Piece]]:
    """The rows of a plan, in the order asked for."""
    *columns, counts = plan.pieces(np.arange(len(plan)) if order is None else order)
    pieces = iter(zip(*(column.tolist() for column in columns), strict=True))
    return [[next(pieces) for _ in range(count)] for count in counts]


def cut_token_by_token(lengths: list[int], order: list[int], seqlen: int) -> Iterator[list[Piece]]:
    """The definition: fill a row; what is cut at its end goes on in the next with the last token once more."""
    row: list[Piece] = []
    room = seqlen
    for record in order:
        start = 0
        while True:
            stop = min(start + room, lengths[record])
            row.append((record, start, stop))
            room -= stop - start
            if room == 0:
                yield row
                row, room = [], seqlen
            if stop == lengths[record]:
                break
            start = stop - 1
    if row:
        yield row


@pytest.mark.parametrize("seqlen", [2, 3, 8, 33])
def test_cut_predicts_each_token_but_the_first_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seqlen: int
) -> None:
    rng = np.random.default_rng(seqlen)
    for case in range(100):
        monkeypatch.setattr(mapped, "BLOCK", [3, 1 << 20][case % 2])
        lengths = rng.integers(1, rng.integers(2, 5 * seqlen), size=rng.integers(1, 30))
        order = rng.permutation(len(lengths))
        plan = cut(lengths, order, seqlen, tmp_path)
        rows = rows_of(plan)
        assert rows == list(cut_token_by_token(lengths.tolist(), order.tolist(), seqlen))
        used = [sum(stop - start for _, start, stop in row) for row in rows]
        assert used[:-1] == [seqlen] * (len(rows) - 1)
        predicted = [(record, token) for row in rows for record, start, stop in row for token in range(start + 1, stop)]
        assert predicted == [(record, token) for record in order for token in range(1, lengths[record])]
        some = rng.integers(0, len(rows), size=5)
        assert rows_of(plan, some) == [rows[row] for row in some]


def test_cut_by_hand(tmp_path: Path) -> None:
    assert rows_of(cut(np.array([3, 6]), np.array([0, 1]), 4, tmp_path)) == [
        [(0, 0, 3), (1, 0, 1)],
        [(1, 0, 4)],
        [(1, 3, 6)],
    ]
    assert rows_of(cut(np.array([4]), np.array([0]), 4, tmp_path)) == [[(0, 0, 4)]]


def best_fit_decreasing(lengths: list[int], seqlen: int) -> list[int]:
    """The definition, in quadratic time: what each row has left. It does not depend on which of equal rows is taken."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        enough = [room for room in rooms if room >= length]
        if enough:
            rooms.remove(min(enough))
        rooms.append((min(enough) if enough else seqlen) - length)
    return sorted(rooms)


@pytest.mark.parametrize("seqlen", [1, 4, 16, 100, 1000])
def test_fit_is_best_fit_decreasing(tmp_path: Path, seqlen: int) -> None:
    rng = np.random.default_rng(seqlen)
    for size in (0, 1, 2, 10, 60, 300):
        for longest in (seqlen, -(-seqlen // 3)):
            lengths = rng.integers(1, longest + 1, size=size)
            plan = fit(lengths, seqlen, tmp_path)
            rows = rows_of(plan)
            assert sorted(piece for row in rows for piece in row) == [(i, 0, n) for i, n in enumerate(lengths)]
            left = [seqlen - sum(stop for _, _, stop in row) for row in rows]
            assert sorted(left) == best_fit_decreasing(lengths.tolist(), seqlen)
            assert rows == sorted(sorted(row) for row in rows)  # in the order of the records
            assert rows_of(plan, np.arange(len(rows))[::-1]) == rows[::-1]


def fewest_by_brute_force(lengths: list[int], seqlen: int) -> int:
    """The least number of rows that hold all records, over all sets of records that fit into one."""
    sizes = [sum(n for i, n in enumerate(lengths) if chosen >> i & 1) for chosen in range(1 << len(lengths))]

    @cache
    def fewest(left: int) -> int:
        if not left:
            return 0
        first = left & -left  # is in some row: try all of its companions
        rest = left ^ first
        best, companions = len(lengths), rest
        while True:
            if sizes[first | companions] <= seqlen:
                best = min(best, 1 + fewest(rest ^ companions))
            if not companions:
                return best
            companions = (companions - 1) & rest

    return fewest((1 << len(lengths)) - 1)


def test_rows_are_near_the_fewest_and_the_bound_is_below_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tight = fitted_best = cases = 0
    for _ in range(150):
        seqlen = int(rng.integers(2, 40))
        lengths = rng.integers(1, rng.integers(1, seqlen + 1) + 1, size=rng.integers(1, 9))
        best = fewest_by_brute_force(lengths.tolist(), seqlen)
        found, bound = len(fit(lengths, seqlen, tmp_path)), fewest_rows(lengths, seqlen)
        assert -(-int(lengths.sum()) // seqlen) <= bound <= best <= found
        assert found <= 11 * best / 9 + 6 / 9  # proven of first fit decreasing (Dósa 2007)
        tight += bound == best
        fitted_best += found == best
        cases += 1
    assert tight > 0.9 * cases
    assert fitted_best > 0.9 * cases


def test_where_no_two_records_share_a_row_the_bound_says_so(tmp_path: Path) -> None:
    lengths = np.array([300] * 7 + [513 - 300] * 3)
    assert fewest_rows(lengths, 512) == len(fit(lengths, 512, tmp_path)) == 9


@pytest.mark.parametrize("longest", [64, 200, 512])
def test_a_million_records_and_little_waste(tmp_path: Path, longest: int) -> None:
    lengths = np.random.default_rng(0).integers(10, longest + 1, size=1_000_000)
    plan = fit(lengths, 512, tmp_path)
    assert np.bincount(plan.records, minlength=len(lengths)).max() == 1
    assert np.add.reduceat(lengths[plan.records], plan.bounds[:-1]).max() <= 512
    assert lengths.sum() / (len(plan) * 512) > 0.99


def fit_in_memory(lengths: np.ndarray, seqlen: int) -> list[list[int]]:
    """Which of equal rows is taken, and how rows are numbered: placed one record at a time.

    A record goes to the row, of those with the least room that is enough, that came to have this room first; of a
    length, all are placed in the rows of one such room before a row changes its room.
    """
    rows: list[list[int]] = []
    rows_with: dict[int, list[int]] = {}
    for length in sorted(set(lengths.tolist()) - {0}, reverse=True):
        records = np.flatnonzero(lengths == length).tolist()
        while records:
            room = min((room for room, found in rows_with.items() if found and room >= length), default=seqlen)
            each = room // length
            wanted = -(-len(records) // each)
            if room == seqlen:
                rows += [[] for _ in range(wanted)]
                rows_with[room] = list(range(len(rows) - wanted, len(rows)))
            candidates = rows_with.pop(room)
            taken, left = candidates[:wanted], candidates[wanted:]
            changed = []
            for row in taken:
                rows[row] += records[:each]
                changed.append((row, room - length * len(records[:each])))
                records = records[each:]
            for row, after in [*changed, *((row, room) for row in left)]:
                if after:
                    rows_with.setdefault(after, []).append(row)
    return sorted(sorted(row) for row in rows)


@pytest.mark.parametrize("seqlen", [1, 7, 64, 1000])
def test_blocks_make_no_difference_to_a_fit_nor_do_records_that_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seqlen: int
) -> None:
    rng = np.random.default_rng(seqlen)
    for size in (1, 10, 60, 300):
        lengths = rng.integers(0, rng.integers(1, seqlen + 1) + 1, size=size)
        expected = fit_in_memory(lengths, seqlen)
        for block in (3, 50, 1 << 20):
            monkeypatch.setattr(mapped, "BLOCK", block)
            rows = rows_of(fit(lengths, seqlen, tmp_path))
            assert [[record for record, _, _ in row] for row in rows] == expected
            assert fewest_rows(lengths, seqlen) == fewest_rows(lengths[lengths > 0], seqlen)


def test_an_order_on_disk_is_the_permutation_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "BLOCK", 100)
    for size in (0, 1, 99, 1234):
        drawn = draw_order(size, np.random.default_rng(size), tmp_path / "order.npy")
        assert np.array_equal(drawn, np.random.default_rng(size).permutation(size))
        assert np.array_equal(draw_order(size, None, tmp_path / "order.npy"), np.arange(size))
