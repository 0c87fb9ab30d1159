"""What a directory held: DVC's cache is found where it is configured, other listings are kept here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.status import listings as module
from pipeline.status.content import directory, listing
from pipeline.status.listings import Listings, dvc_cache


@pytest.fixture(autouse=True)
def no_configuration_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "user"))


def configure(file: Path, cache: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"[core]\n    analytics = false\n['remote \"r\"']\n    url = x\n[cache]\n    dir = {cache}\n")


def test_the_nearest_configuration_decides(tmp_path):
    assert dvc_cache(tmp_path) == tmp_path / ".dvc/cache"
    configure(tmp_path / "user/config", str(tmp_path / "shared"))
    assert dvc_cache(tmp_path) == tmp_path / "shared"
    configure(tmp_path / ".dvc/config", "../beside")
    assert dvc_cache(tmp_path).resolve() == tmp_path / "beside"
    configure(tmp_path / ".dvc/config.local", '"own"')
    assert dvc_cache(tmp_path) == tmp_path / ".dvc/own"


def test_a_configuration_that_is_none_is_named(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("dir = x\n")
    with pytest.raises(ValueError, match=r"\.dvc/config: not a configuration of DVC"):
        dvc_cache(tmp_path)


def test_a_directory_is_in_the_cache_when_all_its_files_are(tmp_path):
    content = directory({"a": "1" * 32, "b": "2" * 32})
    cache = tmp_path / ".dvc/cache/files/md5"
    for md5, data in ((content.md5, listing(content.files)), ("1" * 32, b"a")):
        (cache / md5[:2]).mkdir(parents=True)
        (cache / md5[:2] / md5[2:]).write_bytes(data)
    listings = Listings(tmp_path, tmp_path / "work")
    assert listings.in_cache("1" * 32)
    assert not listings.in_cache(content.md5)
    (cache / "22").mkdir()
    (cache / "22" / ("2" * 30)).write_bytes(b"b")
    assert listings.in_cache(content.md5)
    assert listings.files(content.md5) == content.files
    listings.keep(content)
    assert not (tmp_path / "work").exists()  # DVC has it


def test_what_dvc_does_not_keep_is_kept_here_the_latest_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    listings = Listings(tmp_path, tmp_path / "work")
    contents = [directory({"a": str(version) * 32}) for version in range(5)]
    for age, content in enumerate(contents):
        listings.keep(content)
        os.utime(tmp_path / "work/listings" / content.md5, (1_700_000_000 + age,) * 2)
    assert [listings.files(content.md5) for content in contents] == [None, None, *(c.files for c in contents[2:])]
    listings.keep(contents[2])
    listings.keep(contents[0])
    assert listings.files(contents[2].md5)
    assert listings.files(contents[3].md5) is None
