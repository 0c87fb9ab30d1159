"""Files that were hashed once are not read again, unless they changed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pipeline.status.memory import Memory


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "big"
    path.write_bytes(b"before")
    settle(path)
    return path


def settle(path: Path, seconds: int = 100) -> None:
    """Let it look as if it was written a while ago."""
    then = 1_700_000_000 + seconds
    os.utime(path, (then, then))


def md5(memory: Memory, path: Path) -> str:
    return memory.md5(path, path.stat())


def test_what_is_known_is_not_read(tmp_path, file):
    memory = Memory(tmp_path / "work/status.json")
    first = md5(memory, file)
    assert first == hashlib.md5(b"before").hexdigest()
    memory.save()
    file.write_bytes(b"beford")  # the same size, and by `settle` the same time: only a reader would notice
    settle(file)
    assert md5(Memory(tmp_path / "work/status.json"), file) == first


@pytest.mark.parametrize("how", ["size", "time", "inode"])
def test_what_changed_is_read(tmp_path, file, how):
    memory = Memory(tmp_path / "status.json")
    md5(memory, file)
    if how == "inode":
        file.rename(tmp_path / "other")
    file.write_bytes(b"longer than before" if how == "size" else b"beford")
    settle(file, seconds=101 if how == "time" else 100)
    assert md5(memory, file) == hashlib.md5(file.read_bytes()).hexdigest()


def test_a_file_of_just_now_is_not_kept(tmp_path):
    memory = Memory(tmp_path / "status.json")
    (tmp_path / "new").write_bytes(b"new")
    md5(memory, tmp_path / "new")
    memory.save()
    assert not (tmp_path / "status.json").exists()


def test_what_is_gone_is_forgotten(tmp_path, file):
    memory = Memory(tmp_path / "status.json")
    md5(memory, file)
    memory.save()
    assert str(file) in (tmp_path / "status.json").read_text()
    file.rename(tmp_path / "elsewhere")
    memory = Memory(tmp_path / "status.json")
    md5(memory, tmp_path / "elsewhere")
    memory.save()
    assert str(file) not in (tmp_path / "status.json").read_text()


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"a": 1}', b"\xff"])
def test_a_damaged_memory_is_an_empty_one(tmp_path, file, damage):
    (tmp_path / "status.json").write_bytes(damage)
    memory = Memory(tmp_path / "status.json")
    md5(memory, file)
    memory.save()
    assert Memory(tmp_path / "status.json").md5(file, file.stat()) == hashlib.md5(b"before").hexdigest()
