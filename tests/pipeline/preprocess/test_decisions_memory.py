"""The memory of what is decided over all records: not that of the records."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import mapped
from pipeline.params import load_params
from pipeline.preprocess.components import flatten, unite
from pipeline.preprocess.duplicates import cluster_sizes
from pipeline.preprocess.ledger import FREE, Ledger
from pipeline.preprocess.mixing import mix_sources
from pipeline.preprocess.splitting import assign_splits, require_splits
from pipeline.splitmix import finalize
from tests.pipeline.memory import peak_of


def test_it_does_not_grow_with_the_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "BLOCK", 1 << 12)
    params = replace(load_params().preprocess, weights={"a": 0.5, "b": 1.7})
    peaks = []
    for records in (1 << 16, 1 << 19):
        ledger = Ledger(tmp_path / str(records), [0], records)
        ledger["fixed"][:] = FREE
        ledger["characters"][:] = 100
        for block in mapped.blocks(records):
            ledger["source"][block] = np.arange(block.start, block.stop) % 2
            ledger["draw"][block] = finalize(np.arange(block.start, block.stop, dtype=np.uint64))
            ledger["group_hash"][block] = ledger["draw"][block]
        pairs = np.random.default_rng(0).integers(0, records, (records // 4, 2))
        np.save(tmp_path / "pairs.npy", pairs)
        del pairs

        def decide(ledger: Ledger = ledger, records: int = records) -> None:
            tying = ledger.stays("tying")
            parent = ledger.make("parent", "i8")
            for rows in ledger.blocks():
                parent[rows] = rows
            unite(parent, np.load(tmp_path / "pairs.npy", mmap_mode="r"))
            flatten(parent)
            cluster_sizes(ledger, parent, tying)
            assign_splits(ledger, parent, tying, params)
            mix_sources(ledger, ["a", "b"], {}, params)
            require_splits(ledger, params)

        peaks.append(peak_of(decide))
    assert peaks[1] < 1.5 * peaks[0]  # of eight times as many
    assert peaks[1] < 4 << 20  # one array of all of them has as much; sums by 16 bits of a hash have a quarter
