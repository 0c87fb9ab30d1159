"""The columns of the ledger: zeros, with their space on the disk from the start."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.preprocess.ledger import Ledger


def test_a_column_has_its_space_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.mapped.BLOCK", 30_000)
    column = Ledger(tmp_path, [0], 100_001).make("more", "u8")
    assert (tmp_path / "more.npy").stat().st_blocks * 512 >= column.nbytes == 8 * 100_001
    assert not column.any()
    column[-1] = 7
    assert np.load(tmp_path / "more.npy")[-1] == 7
