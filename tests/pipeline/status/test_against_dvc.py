"""The verdict on every stage is DVC's, through all that may happen to a project; the reasons name what happened."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dvc.repo import Repo

from pipeline.dvcfile import read_stages
from pipeline.status.stages import Project as Seen
from pipeline.status.stages import look
from tests.project import SMALL, Project, write_jsonl

DOWNSTREAM = {"tokenize", "base", "finetune", "evaluate", "export"}
"""Never run here."""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """A folder of own data, the first two stages run once, seen once."""
    project = Project(tmp_path_factory.mktemp("status") / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input", "launch.workers": 1})
    done = project.run("dvc", "repro", "preprocess")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture(autouse=True)
def inside(project, monkeypatch):
    """Each test starts and ends with a project of which two stages are fresh."""
    monkeypatch.chdir(project.path)
    assert agreed() == DOWNSTREAM
    yield
    assert agreed() == DOWNSTREAM


def agreed() -> set[str]:
    """The outdated stages, in our view and in DVC's."""
    with Repo(".") as repo:
        theirs = set(repo.status())
    ours = {stage.name for stage in seen().stages if stage.outdated}
    assert ours == theirs
    return ours


def seen() -> Seen:
    return look(Path(), Path("work"), read_stages())


def reasons(name: str) -> list[str]:
    (stage,) = [stage for stage in seen().stages if stage.name == name]
    return [change.text for change in stage.changes]


@contextmanager
def put_back(*paths: str) -> Iterator[None]:
    """Give files their bytes back after the block; one that was not there is removed."""
    before = {Path(path): Path(path).read_bytes() if Path(path).exists() else None for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)


def replace(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new, 1))


def test_a_parameter(project):
    with put_back("params.yaml"):
        project.set(preprocess__min_chars=40, launch__workers=2)
        assert agreed() == {"preprocess"} | DOWNSTREAM
        assert reasons("preprocess") == ["preprocess.min_chars 32 -> 40"]
        project.set(preprocess__min_chars=32)
        assert agreed() == DOWNSTREAM


@pytest.mark.parametrize("same", ["32.0", "3.2e1", "0o40", "0x20"])
def test_a_parameter_written_in_another_way(same):
    with put_back("params.yaml"):
        replace("params.yaml", "min_chars: 32", f"min_chars: {same}")
        assert agreed() == DOWNSTREAM


def test_parameters_that_come_and_go():
    with put_back("params.yaml"):
        replace("params.yaml", "  min_chars: 32\n", "  least: off\n")
        assert agreed() == {"preprocess"} | DOWNSTREAM
        assert reasons("preprocess") == [
            "preprocess.least is new",
            "preprocess.min_chars is no longer in params.yaml",
        ]


def test_code(project):
    with put_back("pipeline/preprocess/run.py", "pipeline/preprocess/new.py", "pipeline/preprocess/splitting.py"):
        Path("pipeline/preprocess/new.py").touch()
        Path("pipeline/preprocess/splitting.py").unlink()
        with Path("pipeline/preprocess/run.py").open("a") as file:
            file.write("# changed\n")
        assert agreed() == {"preprocess"} | DOWNSTREAM
        assert reasons("preprocess") == [
            "pipeline/preprocess/new.py added",
            "pipeline/preprocess/run.py changed",
            "pipeline/preprocess/splitting.py removed",
        ]


def test_what_does_not_change_the_code():
    os.utime("pipeline/preprocess/run.py")
    compiled = Path("pipeline/preprocess/__pycache__")
    compiled.mkdir(exist_ok=True)
    (compiled / "any.pyc").write_bytes(b"compiled")
    Path("pipeline/preprocess/loose.pyc").write_bytes(b"compiled")
    assert agreed() == DOWNSTREAM


def test_a_rename_keeps_the_bytes_and_changes_the_folder():
    with put_back("pipeline/preprocess/run.py", "pipeline/preprocess/walk.py"):
        Path("pipeline/preprocess/run.py").rename("pipeline/preprocess/walk.py")
        assert agreed() == {"preprocess"} | DOWNSTREAM


def test_your_data():
    with put_back("data/input/more.jsonl"):
        write_jsonl(Path("data/input/more.jsonl"), count=3)
        assert agreed() == {"ingest"} | DOWNSTREAM
        assert reasons("ingest") == ["data/input/more.jsonl added"]
        ingest, preprocess, *_ = seen().stages
        assert ingest.runs
        assert preprocess.waits_for == ("ingest",)
        assert not preprocess.runs


def test_an_output_that_is_gone_comes_back_without_a_run(project):
    shutil.rmtree("data/clean")
    assert agreed() == {"preprocess"} | DOWNSTREAM
    assert reasons("preprocess") == ["data/clean is missing; DVC's cache has it"]
    _, preprocess, *_ = seen().stages
    assert not preprocess.runs
    done = project.run("dvc", "repro", "preprocess")
    assert "Running stage" not in done.stdout
    assert done.returncode == 0, done.stderr


def test_an_output_that_was_changed():
    with put_back("data/ingested/manifest.json"):
        Path("data/ingested/manifest.json").unlink()  # a hard link to the cache: never written to in place
        Path("data/ingested/manifest.json").write_text("{}")
        assert agreed() == {"ingest", "preprocess"} | DOWNSTREAM
        assert reasons("ingest") == ["data/ingested/manifest.json changed"]


def test_a_cache_that_is_gone():
    Path(".dvc/cache").rename(".dvc/away")
    assert agreed() == {"ingest", "preprocess"} | DOWNSTREAM
    assert reasons("preprocess") == ["data/clean is not in DVC's cache"]
    shutil.rmtree(".dvc/cache", ignore_errors=True)
    Path(".dvc/away").rename(".dvc/cache")


def test_a_cache_that_is_elsewhere(tmp_path):
    with put_back(".dvc/config"):
        Path(".dvc/cache").rename(tmp_path / "cache")
        Path(".dvc/config.local").write_text(f"[cache]\n    dir = {os.path.relpath(tmp_path / 'cache', '.dvc')}\n")
        assert agreed() == DOWNSTREAM
        Path(".dvc/config.local").unlink()
        shutil.rmtree(".dvc/cache", ignore_errors=True)
        (tmp_path / "cache").rename(".dvc/cache")


def test_a_command_and_dependencies_of_dvc_yaml():
    with put_back("dvc.yaml"):
        replace("dvc.yaml", "cmd: python -m pipeline.preprocess", "cmd: python -u -m pipeline.preprocess")
        assert agreed() == {"preprocess"} | DOWNSTREAM
        assert reasons("preprocess") == ["command python -m pipeline.preprocess -> python -u -m pipeline.preprocess"]
    with put_back("dvc.yaml"):
        replace("dvc.yaml", "      - pipeline/preprocess\n", "      - pipeline/preprocess\n      - README.md\n")
        assert agreed() == {"preprocess"} | DOWNSTREAM
        assert reasons("preprocess") == ["README.md is new in dvc.yaml"]
    with put_back("dvc.yaml"):
        replace("dvc.yaml", "      - requirements.lock\n", "")
        assert agreed() == DOWNSTREAM  # DVC takes no notice of this
    with put_back("dvc.yaml"):
        replace("dvc.yaml", "      - data/clean\n\n", "      - data/clean\n      - data/other\n\n")
        assert agreed() == {"preprocess"} | DOWNSTREAM
        assert reasons("preprocess") == ["data/other is missing"]


def test_without_a_lock():
    with put_back("dvc.lock"):
        Path("dvc.lock").unlink()
        assert agreed() == {"ingest", "preprocess"} | DOWNSTREAM
        assert not any(stage.recorded for stage in seen().stages)


def test_dvcignore():
    with put_back(".dvcignore"):
        kept = "__pycache__/\n"  # which come and go
        Path(".dvcignore").write_text(f"{kept}pipeline/preprocess/*\n!run.py\n# a comment\n/data/clean/train/\n")
        assert agreed() == {"preprocess"} | DOWNSTREAM
