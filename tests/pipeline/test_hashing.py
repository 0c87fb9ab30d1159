"""What a file holds is read once, and again when it may have changed."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

from pipeline import hashing
from pipeline.hashing import MANIFEST, content_sha256, file_sha256

OLD = time.time_ns() - 3600 * 10**9


@pytest.fixture
def reads(monkeypatch) -> list:
    """Each hash that is computed."""
    computed = []
    digest = hashlib.file_digest

    def counted(file, name):
        computed.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    monkeypatch.setattr(hashing, "_known", {})
    return computed


def test_an_old_file_is_read_once(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(hashing, "SETTLED_NS", 0)
    file = tmp_path / "data"
    file.write_bytes(b"some")
    expected = hashlib.sha256(b"some").hexdigest()
    time.sleep(0.01)
    assert [file_sha256(file), file_sha256(file), content_sha256(file)] == [expected] * 3
    assert len(reads) == 1


def test_a_file_that_was_just_written_is_read_each_time(tmp_path, reads):
    file = tmp_path / "data"
    for content in (b"one", b"two"):  # perhaps within one tick of the file system's clock
        file.write_bytes(content)
        os.utime(file, ns=(OLD, OLD))
        assert file_sha256(file) == hashlib.sha256(content).hexdigest()
    assert len(reads) == 2


def test_a_change_that_leaves_size_and_time_is_seen(tmp_path, monkeypatch, reads):
    monkeypatch.setattr(hashing, "SETTLED_NS", 0)
    file = tmp_path / "data"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(OLD, OLD))
        time.sleep(0.05)
        assert file_sha256(file) == hashlib.sha256(content).hexdigest()


def test_a_manifest_of_somebody_else_hides_nothing(tmp_path):
    for content in ('{"version": 1}', '{"files": {}}', "[]", "not JSON"):
        (tmp_path / MANIFEST).write_text(content)
        (tmp_path / "weights").write_text("one")
        before = content_sha256(tmp_path)
        (tmp_path / "weights").write_text("two")
        assert content_sha256(tmp_path) != before
