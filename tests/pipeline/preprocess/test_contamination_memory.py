"""The memory of what the stage's own process does for decontamination: not that of the evaluation records."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline import mapped
from pipeline.preprocess.contamination import lookup
from pipeline.preprocess.contamination.common import count_shared, set_aside
from pipeline.preprocess.contamination.listing import list_common
from pipeline.preprocess.contamination.lookup import Ngrams, merge, write_part
from pipeline.preprocess.contamination.scan import HIT
from tests.pipeline.memory import peak_of

OF_A_PART, EACH = 1 << 12, 4
"""Records of a part, and n-grams of a record."""


def test_it_does_not_grow_with_the_evaluation_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "BLOCK", 1 << 12)
    monkeypatch.setattr(lookup, "AT_A_TIME", 1 << 14)
    rng = np.random.default_rng(0)
    peaks = []
    for parts in (4, 32):
        folder = tmp_path / str(parts)
        folders = [folder / str(number) for number in range(parts)]
        for part in folders:
            part.mkdir(parents=True)
            ids = pl.Series([f"{part.name}:{row:040}" for row in range(OF_A_PART)])
            hashes = rng.integers(2**64, size=EACH * OF_A_PART, dtype=np.uint64)
            owners = np.repeat(np.arange(OF_A_PART), EACH)
            write_part(part, ids, Ngrams(hashes, owners, np.sort(hashes)), np.zeros(OF_A_PART, dtype=bool))
        found = []
        for number in range(parts):  # a shard each, of which each n-gram is in one record
            hits = np.zeros(EACH * OF_A_PART, dtype=HIT)
            hits["ngram"] = np.arange(len(hits)) + number * len(hits)
            found.append(folder / f"found-{number}.npy")
            np.save(found[-1], hits)

        def decide(folder: Path = folder, folders: list[Path] = folders, found: list[Path] = found) -> None:
            merge(folders, folder / "all")
            count_shared(folder / "shared.npy", folder / "all", found * 11)
            assert set_aside(folder / "common", folder / "all", folder / "shared.npy") > 0
            assert list_common(folder / "common", folder / "all", folder / "shared.npy").height == 1000

        peaks.append(peak_of(decide))
    assert peaks[1] < 1.5 * peaks[0]  # of eight times as many
