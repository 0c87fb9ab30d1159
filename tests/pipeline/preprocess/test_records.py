"""The shards whose records are read together: all, in order, of one kind, of a bounded number of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.preprocess import records
from pipeline.preprocess.annotate import RECORDS, Annotate
from pipeline.preprocess.ledger import Ledger
from pipeline.preprocess.prepare import Preparation
from pipeline.preprocess.records import runs_of_shards


@pytest.mark.parametrize(
    ("at_a_time", "bytes_at_a_time", "runs"),
    [
        (100, 1000, [(0, 3), (3, 5)]),
        (5, 1000, [(0, 2), (2, 3), (3, 5)]),
        (1, 1000, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (100, 250, [(0, 2), (2, 3), (3, 5)]),
    ],
)
def test_runs_are_of_one_kind_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_time: int, bytes_at_a_time: int, runs: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(records, "AT_A_TIME", at_a_time)
    monkeypatch.setattr(records, "BYTES_AT_A_TIME", bytes_at_a_time)
    (tmp_path / RECORDS).write_bytes(bytes(100))
    kinds = ["conversations"] * 3 + ["documents"] * 2
    shards = [Annotate(tmp_path, kind, Preparation((), ()), None, None, tmp_path) for kind in kinds]
    ledger = Ledger(tmp_path / "ledger", [0, 3, 5, 12, 14], 16)
    assert [(run.start, run.stop) for run in runs_of_shards(shards, ledger)] == runs
    assert ledger.shards(range(3, 5)) == slice(12, 16)
