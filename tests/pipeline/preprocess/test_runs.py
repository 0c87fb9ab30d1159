"""The jobs of ranges: what they cost to make, and what their keys depend on."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pipeline import hashing
from pipeline.preprocess import runs
from pipeline.preprocess.runs import ENTRY, Match, match, matches, write_run
from pipeline.shards import keys
from pipeline.shards.keys import job_key

ENTRIES = 8


def make(folder: Path, shards: int) -> tuple[list[Path], Path]:
    """Runs of so many shards, and the mask of who takes part: everyone."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = [folder / f"{shard}.npy" for shard in range(shards)]
    for path in paths:
        high, low = rng.integers(2**64, size=(2, ENTRIES), dtype=np.uint64)
        write_run(path, high, low, np.arange(ENTRIES))
    np.save(folder / "mask.npy", np.ones(shards * ENTRIES, dtype=bool))
    return paths, folder / "mask.npy"


def jobs_of(paths: list[Path], mask: Path, out: Path) -> list[Match]:
    return matches(paths, [ENTRIES * shard for shard in range(len(paths))], mask, out)


def keys_of(jobs: list[Match]) -> list[str]:
    return [job_key(match, "code", job) for job in jobs]


@pytest.mark.parametrize("ranges", [1, 4, 16])
def test_each_run_is_hashed_once_however_many_ranges_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: int
) -> None:
    paths, mask = make(tmp_path / "runs", 16)
    hashed: Counter[Path] = Counter()

    def counted(path: Path) -> str:
        hashed[path] += 1
        return hashing.file_sha256(path)

    for module in (runs, keys):
        monkeypatch.setattr(module, "file_sha256", counted)
    monkeypatch.setattr(runs, "RANGE_BYTES", 16 * ENTRIES * ENTRY.itemsize // ranges)
    jobs = jobs_of(paths, mask, tmp_path / "out")
    assert len(set(keys_of(jobs))) == len(jobs) == ranges
    assert hashed == Counter([mask, *paths])


def test_a_job_does_not_grow_with_the_shards(tmp_path: Path) -> None:
    sizes = set()
    for shards in (10, 99):
        (job,) = jobs_of(*make(tmp_path / f"{shards}", shards), tmp_path / "out")
        sizes.add(len(pickle.dumps(job)))
    assert len(sizes) == 1


def test_a_key_depends_on_what_is_read_and_not_on_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "RANGE_BYTES", ENTRIES * ENTRY.itemsize)
    paths, mask = make(tmp_path / "one", 3)
    before = keys_of(jobs_of(paths, mask, tmp_path / "out"))
    assert len(before) == 3
    assert keys_of(jobs_of(*make(tmp_path / "two", 3), tmp_path / "elsewhere")) == before
    others = [keys_of(jobs_of(paths[::-1], mask, tmp_path / "out"))]
    others.append(keys_of(matches(paths, [0, ENTRIES, 2 * ENTRIES + 1], mask, tmp_path / "out")))
    np.save(mask, np.arange(3 * ENTRIES) > 0)
    others.append(keys_of(jobs_of(paths, mask, tmp_path / "out")))
    run = np.fromfile(paths[1], ENTRY)
    run["low"][0] ^= 1
    run.tofile(paths[1])
    others.append(keys_of(jobs_of(paths, mask, tmp_path / "out")))
    assert len({key for found in [before, *others] for key in found}) == 5 * 3
