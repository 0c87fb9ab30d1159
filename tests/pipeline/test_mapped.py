"""Arrays in files against arrays in memory."""

from pathlib import Path

import numpy as np
import pytest

from pipeline import mapped


@pytest.fixture(autouse=True, params=[3, 1 << 20])
def block(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(mapped, "BLOCK", request.param)


def test_blocks_are_all_numbers_once() -> None:
    for size in (0, 1, 3, 7):
        found = [number for block in mapped.blocks(size) for number in range(block.start, block.stop)]
        assert found == list(range(size))


@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_what_is_made_is_zeros_and_is_kept_as_it_is_changed(tmp_path: Path, size: int) -> None:
    path = tmp_path / "some.npy"
    made = mapped.make(path, "i8", size)
    assert made.tolist() == [0] * size
    made[1:] = 7
    assert np.array_equal(np.load(path), made)
    assert np.array_equal(mapped.read(path), [0, *[7] * (size - 1)][:size])


@pytest.mark.parametrize("dtype", ["u1", "?", "i8"])
def test_parts_are_written_one_after_another(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(0)
    for sizes in ([], [0], [4, 0, 5], [1000]):
        parts = [rng.integers(0, 2, size) for size in sizes]
        written = mapped.write(tmp_path / "some.npy", dtype, iter(parts))
        assert written.dtype == np.dtype(dtype)
        assert written.tolist() == np.concatenate([*parts, np.empty(0)]).astype(dtype).tolist()
        assert np.array_equal(np.load(tmp_path / "some.npy"), written)


def test_who_has_an_old_file_mapped_keeps_it(tmp_path: Path) -> None:
    old = mapped.write(tmp_path / "some.npy", "i8", [np.arange(5000)])
    mapped.make(tmp_path / "some.npy", "i8", 1)
    assert np.array_equal(old, np.arange(5000))
