"""DVC's md5 of files and directories, and its .dvcignore, beside DVC's own code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter
from dvc_data.hashfile.build import build
from dvc_data.hashfile.db import HashFileDB

from pipeline.status.content import Contents, directory, listing, read_listing
from pipeline.status.ignored import Ignored
from pipeline.status.memory import Memory

NAMES = ["a.txt", "b/a.txt", 'b/ü "quoted".txt', "b-c", "b.c", "B/deep/er/empty", "keep/x.pyc", "skip/x.txt", ".hidden"]
PATTERNS = ["*.pyc", "!keep/x.pyc", "/skip", "deep/*", "**/er", "logs/", "!logs/a.txt", "# a.txt", "", "a?c", "b/**/z"]


@pytest.fixture
def tree(tmp_path) -> Path:
    for name in NAMES:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(name.encode() * 3 if "empty" not in name else b"")
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "tree" / "a.txt")
    (tmp_path / "tree" / "folder link").symlink_to(tmp_path / "tree" / "b")
    (tmp_path / "tree" / "nothing").mkdir()
    return tmp_path


def contents(root: Path) -> Contents:
    return Contents(root, Memory(root / "memory.json"))


def dvc_md5(path: Path) -> str:
    cache = HashFileDB(localfs, str(path.parent / "cache"))
    return build(cache, str(path), localfs, "md5", dry_run=True)[2].hash_info.value


def test_a_directory_is_what_dvc_says(tree):
    content = contents(tree).of("tree")
    assert content.md5 == dvc_md5(tree / "tree")
    assert content.files.keys() == {*NAMES, "link"}


def test_a_file_is_what_dvc_says(tree):
    assert contents(tree).of("tree/a.txt").md5 == dvc_md5(tree / "tree/a.txt")
    assert contents(tree).of(str(tree / "tree/a.txt")).md5 == dvc_md5(tree / "tree/a.txt")


def test_an_empty_directory_is_what_dvc_says(tree):
    assert contents(tree).of("tree/nothing").md5 == dvc_md5(tree / "tree/nothing")


def test_nothing_is_nothing(tree):
    assert contents(tree).of("tree/missing") is None


def test_a_listing_comes_back(tree):
    files = contents(tree).of("tree").files
    (tree / "kept").write_bytes(listing(files))
    assert read_listing(tree / "kept") == files
    (tree / "kept").write_bytes(listing(files)[:-9])
    assert read_listing(tree / "kept") is None


def test_the_order_of_the_files_does_not_matter():
    assert directory({"b": "1", "a": "2"}).md5 == directory({"a": "2", "b": "1"}).md5


@pytest.mark.parametrize("path", [*NAMES, "skip", "skip/x.txt", "logs/a.txt", "b/c/z", "deep/a", ".dvc/config", "abc"])
def test_the_same_is_ignored_as_by_dvc(tmp_path, path):
    (tmp_path / ".dvcignore").write_text("\n".join(PATTERNS))
    theirs, ours = DvcIgnoreFilter(localfs, str(tmp_path)), Ignored(tmp_path)
    full = tmp_path / path
    assert ours.file(full) == theirs.is_ignored_file(str(full))
    for folder in full.relative_to(tmp_path).parents[:-1]:
        assert ours.folder(tmp_path / folder) == theirs.is_ignored_dir(str(tmp_path / folder))


def test_outside_of_the_project_nothing_is_ignored(tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / ".dvcignore").write_text("*\n")
    assert not Ignored(tmp_path / "project").file(tmp_path / "mine.jsonl")
    assert not Ignored(tmp_path / "project").folder(tmp_path / "mine")


def test_a_directory_that_is_ignored_is_missing(tree):
    (tree / ".dvcignore").write_text("tree/b/\n")
    assert contents(tree).of("tree/b") is None
    assert "b/a.txt" not in contents(tree).of("tree").files
    os.unlink(tree / ".dvcignore")
    assert contents(tree).of("tree/b") is not None
