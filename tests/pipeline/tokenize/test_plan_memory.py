"""The memory of planning rows: not that of the records."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import mapped
from pipeline.tokenize.cutting import cut
from pipeline.tokenize.fitting import fewest_rows, fit
from pipeline.tokenize.plan import TOKENS, draw_order
from tests.pipeline.memory import peak_of


@pytest.mark.parametrize("is_cut", [False, True])
def test_it_does_not_grow_with_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_cut: bool) -> None:
    monkeypatch.setattr(mapped, "BLOCK", 1 << 12)
    peaks = []
    for records in (1 << 15, 1 << 18):
        lengths = np.random.default_rng(0).integers(1, 129, records)
        tokens = mapped.write(tmp_path / TOKENS, "i8", [lengths])
        del lengths

        def plan(records: int = records, tokens: np.ndarray = tokens) -> None:
            order = draw_order(records, np.random.default_rng(0), tmp_path / "order.npy")
            if is_cut:
                cut(tokens, order, 128, tmp_path)
            else:
                fit(tokens, 128, tmp_path)
                fewest_rows(tokens, 128)

        peaks.append(peak_of(plan))
    assert peaks[1] < 1.5 * peaks[0]  # of eight times as many; runs of rows by their room come to their full number
    assert peaks[1] < 1 << 20  # one array of all of them has twice as much
