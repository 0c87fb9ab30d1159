"""A manifest tells every way in which a directory differs from what was written."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.shards import read_manifest, shard_names, verify_manifest, write_manifest


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "test").mkdir()
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "test" / "b").write_bytes(b"two")
    write_manifest(tmp_path, {"a": 1, "test/b": 2}, {"counts": {"x": 3}})
    return tmp_path


def test_a_manifest_has_the_facts_and_each_file(directory: Path) -> None:
    assert verify_manifest(directory) == {
        "counts": {"x": 3},
        "files": {
            "a": {"records": 1, "sha256": hashlib.sha256(b"one").hexdigest()},
            "test/b": {"records": 2, "sha256": hashlib.sha256(b"two").hexdigest()},
        },
    }
    assert json.loads((directory / "manifest.json").read_text()) == read_manifest(directory)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda directory: (directory / "a").unlink(), r"a is missing"),
        (lambda directory: (directory / "test" / "b").write_bytes(b"tow"), r"test/b differs"),
        (lambda directory: (directory / "c").write_bytes(b"c"), r"c is not in manifest\.json"),
        (lambda directory: (directory / "manifest.json").unlink(), r"manifest\.json is missing.*dvc repro"),
    ],
)
def test_damage_is_found(directory: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(directory)
    with pytest.raises(ValueError, match=message):
        verify_manifest(directory)


def test_every_file_must_be_counted(directory: Path) -> None:
    with pytest.raises(AssertionError):
        write_manifest(directory, {"a": 1}, {})


def test_files_are_in_the_order_of_their_numbers_however_many_there_are(tmp_path: Path) -> None:
    numbers = [99_998, 99_999, 100_000, 100_001, 1_000_000]
    shards = [f"{kind}-{number:05d}.parquet" for kind in ("conversations", "documents") for number in numbers]
    names = [*shards, "quarantine.parquet", "train/documents-99999.parquet", "train/documents-100000.parquet"]
    (tmp_path / "train").mkdir()
    for name in names:
        (tmp_path / name).touch()
    write_manifest(tmp_path, dict.fromkeys(sorted(names), 1), {})
    assert list(read_manifest(tmp_path)["files"]) == names
    assert shard_names(read_manifest(tmp_path)) == shards
