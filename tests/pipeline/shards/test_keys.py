"""A key changes with whatever a result depends on, and with nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipeline.shards.keys import job_key


class Way(Enum):
    here = "here"
    there = "there"


@dataclass(frozen=True)
class Part:
    file: Path
    start: int


@dataclass(frozen=True)
class Job:
    name: str
    parts: list[Part]
    splits: pl.Series
    limit: float | None
    way: Way
    labels: frozenset[str]
    folder: Path | None = None


def function(job: Job) -> None: ...


def other_function(job: Job) -> None: ...


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "a").write_text("one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("two")
    parts = [Part(tmp_path / "a", 0), Part(tmp_path / "folder", 0)]
    return Job("shard 1", parts, pl.Series(["train", None, "test"]), None, Way.here, frozenset("xyz"))


def key(job: Any) -> str:
    return job_key(function, "code", job)


def test_whatever_a_result_depends_on_changes_the_key(job: Job, tmp_path: Path) -> None:
    keys = [
        key(job),
        job_key(other_function, "code", job),
        job_key(function, "other code", job),
        key(replace(job, limit=0.5)),
        key(replace(job, way=Way.there)),
        key(replace(job, labels=frozenset("xy"))),
        key(replace(job, parts=job.parts[:1])),
        key(replace(job, parts=job.parts[::-1])),
        key(replace(job, parts=[replace(job.parts[0], start=1), job.parts[1]])),
        key(replace(job, splits=pl.Series(["train", "", "test"]))),
        key(replace(job, splits=pl.Series([None, None, None], dtype=pl.String))),
        key(replace(job, splits=pl.Series([None, None, None], dtype=pl.Int8))),
    ]
    (tmp_path / "folder" / "b").write_text("three")
    keys.append(key(job))
    (tmp_path / "a").write_text("three")
    keys.append(key(job))
    assert len(set(keys)) == len(keys)


def test_names_places_and_how_a_value_lies_in_memory_make_no_difference(job: Job, tmp_path: Path) -> None:
    (tmp_path / "moved").write_text("one")
    sliced = pl.Series(["test", "train", None, "test"]).slice(1)
    moved = [replace(job.parts[0], file=tmp_path / "moved"), job.parts[1]]
    other = replace(job, name="shard 7", parts=moved, splits=sliced, folder=tmp_path / "out")
    assert key(other) == key(job)


def test_what_has_no_content_is_an_error(job: Job, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="object in a job"):
        key(replace(job, way=object()))
    with pytest.raises(FileNotFoundError, match="gone"):
        key(replace(job, parts=[Part(tmp_path / "gone", 0)]))
