"""A full disk is told from other errors by what libraries say of it."""

from pathlib import Path

import pytest

from pipeline.work.disk import disk_trouble

WORDINGS = [
    "No space left on device (os error 28)",
    "Disk quota exceeded (os error 122)",
    "4096 requested and 1024 written",
    "parquet: File out of specification: Invalid thrift: transport error",
]


@pytest.mark.parametrize("wording", WORDINGS)
def test_a_full_disk_is_named(tmp_path: Path, wording: str) -> None:
    error = ValueError("shard 7 failed")
    error.__cause__ = RuntimeError(wording)
    assert " is full (" in (disk_trouble(error, tmp_path) or "")


def test_other_errors_are_left_alone(tmp_path: Path) -> None:
    assert disk_trouble(RuntimeError("parquet: File out of specification: Invalid thrift: bad type"), tmp_path) is None
