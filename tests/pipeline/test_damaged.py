"""What a stage hands on, damaged before the next one reads it: an error that names the file, and nothing is written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from pipeline.preprocess.run import preprocess
from pipeline.shards import Local, write_manifest
from pipeline.tokenize.run import tokenize
from pipeline.work import WorkFolder
from tests.pipeline.preprocess.test_preprocess import PARAMS as PREPROCESS
from tests.pipeline.preprocess.test_preprocess import write_ingested
from tests.pipeline.tokenize.test_tokenize import PARAMS as TOKENIZE
from tests.pipeline.tokenize.test_tokenize import random_clean, write_clean
from tests.pipeline.users import unprivileged

SHARDS = {"preprocess": "documents-00000.parquet", "tokenize": "train/documents-00000.parquet"}
"""The shard that is damaged, of what each stage reads."""


def write_input(stage: str, folder: Path) -> Path:
    """What the stage reads, whole; returns the shard."""
    if stage == "preprocess":
        write_ingested(folder)
    else:
        write_clean(folder, random_clean())
    return folder / SHARDS[stage]


def run(stage: str, source: Path, place: Path) -> None:
    if stage == "preprocess":
        preprocess(source, WorkFolder(place), PREPROCESS, executor=Local(1))
    else:
        tokenize(source, WorkFolder(place), TOKENIZE, checkpoint="embedded", executor=Local(1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def change(*changes: pl.Expr) -> Callable[[Path], object]:
    return lambda path: pl.read_parquet(path, glob=False).with_columns(changes).write_parquet(path)


def make_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_folder_to_itself(path: Path) -> None:
    (path.parent / "more").symlink_to(".")
    path.unlink()


DAMAGED: list[tuple[Callable[[Path], object], str]] = [
    (cut, r"differs from manifest\.json"),
    (change(pl.lit(3).alias("text")), r"differs from manifest\.json"),
    (Path.unlink, "is missing"),
    (make_loop, "is missing"),
    (link_folder_to_itself, "is missing"),
    (lambda path: [path.unlink(), path.mkdir()], "is missing"),
    (lambda path: path.with_name("documents-99999.parquet").touch(), r"is not in manifest\.json"),
]
WELL_COUNTED: list[tuple[Callable[[Path], object], str]] = [
    (cut, r"documents-00000\.parquet is not readable as Parquet \("),
    (lambda path: path.write_bytes(b""), r"documents-00000\.parquet is not readable as Parquet \("),
    (
        change(pl.lit(3).alias("text")),
        r"documents-00000\.parquet has .*'text': 'Int32'.*, not the columns of documents",
    ),
    (change(pl.lit([]).alias("text")), r"documents-00000\.parquet has .*'text': 'List.*, not the columns of documents"),
    (change(pl.lit("").alias("more")), r"documents-00000\.parquet has .*'more'.*, not the columns of documents"),
    (
        lambda path: pl.read_parquet(path, glob=False).drop("source").write_parquet(path),
        r"documents-00000\.parquet has .*, not the columns of documents",
    ),
]
WELL_TYPED: list[tuple[str, str, Callable[[pl.Series], list[object]], str]] = [
    *[("documents", name, lambda values: [None, *values[1:]], "1 nulls") for name in ("id", "source", "group", "text")],
    ("conversations", "messages", lambda values: [None, *values[1:]], "1 nulls in [0-9]+ records"),
    ("conversations", "messages", lambda values: [[], *values[1:]], "no messages in 1 of [0-9]+ records"),
    ("conversations", "messages", lambda values: [[*values[0], None], *values[1:]], "1 nulls in its messages"),
    (
        "conversations",
        "messages",
        lambda values: [[{"role": None, "content": "a"}, {"role": "user", "content": None}], *values[1:]],
        "1 nulls in its messages",
    ),
]
"""Of a kind's shard, the column and its values from those that it had."""
MANIFESTS = [
    "",
    "{",
    "[]",
    "3",
    '{"files": []}',
    '{"files": {"a": 3}}',
    '{"files": {"a": {"records": "x"}}}',
    '{"files": {"a": {"records": -1, "sha256": ""}}}',
    "[" * 10**5,
]


def fails(stage: str, source: Path, place: Path, message: str) -> None:
    """The stage does, with what to do, and has made no outputs."""
    with pytest.raises(ValueError, match=message) as failure:
        run(stage, source, place)
    assert "run `dvc repro`" in str(failure.value)
    assert not WorkFolder(place).out.exists()
    assert not list(place.rglob("*.parquet"))


@pytest.mark.parametrize("stage", SHARDS)
@pytest.mark.parametrize(("damage", "message"), DAMAGED)
def test_what_the_manifest_does_not_know(
    tmp_path: Path, stage: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_input(stage, tmp_path / "in"))
    fails(stage, tmp_path / "in", tmp_path / "work", message)


@pytest.mark.parametrize("stage", SHARDS)
@pytest.mark.parametrize(("damage", "message"), WELL_COUNTED)
def test_what_a_manifest_was_made_for(
    tmp_path: Path, stage: str, damage: Callable[[Path], object], message: str
) -> None:
    damage(write_input(stage, tmp_path / "in"))
    manifest = tmp_path / "in/manifest.json"
    files = json.loads(manifest.read_text())["files"]
    manifest.unlink()
    write_manifest(tmp_path / "in", {name: file["records"] for name, file in files.items()}, {})
    fails(stage, tmp_path / "in", tmp_path / "work", message)


@pytest.mark.parametrize("stage", SHARDS)
@pytest.mark.parametrize(("kind", "column", "values", "message"), WELL_TYPED)
def test_values_that_no_stage_writes(
    tmp_path: Path, stage: str, kind: str, column: str, values: Callable[[pl.Series], list[object]], message: str
) -> None:
    shard = write_input(stage, tmp_path / "in")
    check_values(stage, shard.with_name(f"{kind}-00000.parquet"), tmp_path, column, values, message)


def test_splits_that_there_are_none_of(tmp_path: Path) -> None:
    shard = write_input("preprocess", tmp_path / "in")
    check_values("preprocess", shard, tmp_path, "split", lambda values: ["tset", *values[1:]], r"the splits \['tset'\]")


def check_values(
    stage: str, shard: Path, folder: Path, column: str, values: Callable[[pl.Series], list[object]], message: str
) -> None:
    """The stage names the shard and the column that has these values, in whatever order it comes to the shards."""
    table = pl.read_parquet(shard, glob=False)
    changed = pl.Series(column, values(table[column]), dtype=table.schema[column])
    table.with_columns(changed).write_parquet(shard)
    manifest = folder / "in/manifest.json"
    files = json.loads(manifest.read_text())["files"]
    manifest.unlink()
    write_manifest(folder / "in", {name: file["records"] for name, file in files.items()}, {})
    with pytest.raises(ValueError, match=rf"{shard}: column {column} has {message}.*: remove {shard} and run `dvc"):
        run(stage, folder / "in", folder / "work")
    assert not WorkFolder(folder / "work").out.exists()


@pytest.mark.parametrize("stage", SHARDS)
@pytest.mark.parametrize("text", MANIFESTS)
def test_a_manifest_that_is_none(tmp_path: Path, stage: str, text: str) -> None:
    write_input(stage, tmp_path / "in")
    (tmp_path / "in/manifest.json").write_text(text)
    fails(stage, tmp_path / "in", tmp_path / "work", r"in/manifest\.json is no manifest \(")


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users")
@pytest.mark.parametrize("stage", SHARDS)
@pytest.mark.parametrize("name", ["", "manifest.json"])
def test_what_may_not_be_read(tmp_path: Path, stage: str, name: str) -> None:
    shard = write_input(stage, tmp_path / "in")
    path = tmp_path / "in" / name if name else shard
    path.chmod(0)
    with unprivileged(tmp_path):
        fails(
            stage, tmp_path / "in", tmp_path / "work", rf"{path} cannot be read \(Permission denied\): make it readable"
        )
