"""The draw of the splits over kinds and sources, against a sort of each stratum."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.preprocess.ledger import SPLIT_CODES
from pipeline.preprocess.strata import Strata, draw

TEST, VALIDATION, TRAIN = (SPLIT_CODES.index(split) for split in ("test", "validation", "train"))
NO_OWN: dict[str, set[str]] = {"documents": set(), "conversations": set()}


def drawn_by_sorting(
    kinds: np.ndarray, sources: np.ndarray, hashes: np.ndarray, test: float, validation: float
) -> np.ndarray:
    """The definition."""
    strata: dict[tuple[int, int], list[int]] = {}
    for tie in np.flatnonzero(kinds).tolist():
        own = int(np.count_nonzero((kinds == kinds[tie]) & (sources == sources[tie])))
        is_small = any(0 < fraction * own < 1 for fraction in (test, validation))
        strata.setdefault((int(kinds[tie]), -1 if is_small else int(sources[tie])), []).append(tie)
    splits = np.full(len(kinds), TRAIN)
    for ties in strata.values():

        def order(tie: int) -> tuple[bool, int]:
            own = hashes[(kinds == kinds[tie]) & (sources == sources[tie])]
            return bool(hashes[tie] == own.max()), int(hashes[tie]) >> 1

        ties = sorted(ties, key=order)
        held_out = min(math.ceil(round(test * len(ties), 6)), len(ties) - 1)
        more = min(math.ceil(round(validation * len(ties), 6)), len(ties) - 1 - held_out)
        splits[ties[:held_out]] = TEST
        splits[ties[held_out : held_out + more]] = VALIDATION
    return splits


@pytest.mark.parametrize("most", [1, 4, 60, 300])
@pytest.mark.parametrize("seed", range(8))
def test_against_a_sort(monkeypatch: pytest.MonkeyPatch, seed: int, most: int) -> None:
    monkeypatch.setattr("pipeline.mapped.BLOCK", 1 << 18 if seed % 2 else 50)
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 600))
    kinds = rng.choice(np.array([0, 1, 2, 3], dtype=np.uint8), size, p=[0.2, 0.4, 0.3, 0.1])
    sources = (most * rng.random(size) ** 2).astype(np.uint16)
    hashes = rng.integers(0, 1 << (64 if seed < 6 else 4), size, dtype=np.uint64)
    test, validation = rng.choice([0, 0.01, 0.1, 0.4], 2).tolist()
    splits = np.zeros(size, dtype=np.uint8)
    params = SimpleNamespace(test_fraction=test, validation_fraction=validation)
    draw(Strata(kinds, sources, hashes, NO_OWN, params), splits)  # type: ignore[arg-type]
    assert np.array_equal(splits, drawn_by_sorting(kinds, sources, hashes, test, validation))
