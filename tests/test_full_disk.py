"""A full disk stops a stage with a clear error, and with space made it goes on: on real file systems of a few MB."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.project import SMALL, STAGES, Project, write_jsonl

NEEDS_MOUNT = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small tmpfs takes root on Linux"
)


def remount(path, options: str) -> None:
    when_idle("mount", "-o", f"remount,{options}", path)


def when_idle(*command) -> None:
    """Run it when nothing holds the file system any more: the export to MLflow ends a little after its stage."""
    deadline = time.monotonic() + 60
    while (done := subprocess.run(command, capture_output=True, text=True)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)


@pytest.fixture
def mount(request):
    """A function that puts a file system of so many kilobytes on a new directory."""
    mounted = []

    def put(path, kilobytes: int) -> None:
        path.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", path], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"this machine does not let root mount: {done.stderr}")
        mounted.append(path)

    yield put
    for path in reversed(mounted):
        when_idle("umount", path)


@NEEDS_MOUNT
def test_work_on_a_full_disk_stops_and_goes_on_when_there_is_space(tmp_path, mount):
    project = Project(tmp_path / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl", count=400)
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl", "launch.checkpoint_seconds": 0})
    project.set_all({"base.budget": 120})
    mount(project.path / "work", 12_000)
    filler = project.path / "work/filler"

    def fill(leave: int) -> None:
        """Leave so many kilobytes."""
        filler.unlink(missing_ok=True)
        free = shutil.disk_usage(project.path / "work").free
        with filler.open("wb") as file:
            file.write(b"\0" * (free - leave * 1024))

    for stage, room in (("preprocess", 40), ("tokenize", 60), ("base", 200)):
        before = project.run("dvc", "repro", STAGES[STAGES.index(stage) - 1])
        assert before.returncode == 0, before.stderr
        fill(room)
        full = project.run("dvc", "repro", stage)
        assert full.returncode != 0, stage
        assert f"{stage}: error: the disk" in full.stderr, full.stderr
        assert "is full" in full.stderr
        assert "python -m pipeline.work prune" in full.stderr
        assert "Traceback" not in full.stderr
        filler.unlink()
    assert project.repro() == ["base", "finetune", "evaluate", "export"]
    other = Project(tmp_path / "other")
    shutil.copytree(project.path / "data/input", other.path / "data/input", dirs_exist_ok=True)
    shutil.copy(project.path / "params.yaml", other.path)
    assert other.run("dvc", "repro", "finetune").returncode == 0
    folders = ("data/clean", "data/tokens", "artifacts/base/model", "artifacts/finetune/model")
    assert project.hashes(*folders) == other.hashes(*folders)


@NEEDS_MOUNT
def test_decisions_on_a_full_disk_stop_and_go_on_when_there_is_space(tmp_path, mount):
    project = Project(tmp_path / "clone")
    (project.path / "data/input").mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": f"document {number} says a thing of its own"}) for number in range(20_000))
    (project.path / "data/input/mine.jsonl").write_text("\n".join(lines))
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    mount(project.path / "work", 40_000)
    assert project.run("dvc", "repro", "preprocess").returncode == 0
    project.set_all({"preprocess.min_chars": 33})  # decides anew and annotates nothing
    filler = project.path / "work/filler"
    with filler.open("wb") as file:
        file.write(b"\0" * (shutil.disk_usage(project.path / "work").free - 300 * 1024))
    full = project.run("dvc", "repro", "preprocess")
    assert full.returncode != 0
    assert "preprocess: error: the disk" in full.stderr, full.stderr
    assert "Traceback" not in full.stderr
    filler.unlink()
    again = project.run("dvc", "repro", "preprocess")
    assert again.returncode == 0, again.stderr


@NEEDS_MOUNT
def test_outputs_on_a_full_disk_are_published_when_there_is_space(tmp_path, mount):
    project = Project(tmp_path / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    mount(project.path / "artifacts", 60)
    full = project.run("dvc", "repro", "base")
    assert full.returncode != 0
    assert f"base: error: the disk of {project.path / 'artifacts'} is full" in full.stderr
    assert "Traceback" not in full.stderr
    assert not list((project.path / "artifacts").iterdir())
    remount(project.path / "artifacts", "size=20000k")
    again = project.run("dvc", "repro", "base")
    assert again.returncode == 0, again.stderr
    assert "made already" in again.stdout


@NEEDS_MOUNT
def test_work_that_cannot_be_written_to_is_named(tmp_path, mount):
    project = Project(tmp_path / "clone")
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    mount(project.path / "work", 1000)
    remount(project.path / "work", "ro")
    done = project.run("dvc", "repro", "ingest")
    assert done.returncode != 0
    assert "ingest: error: work/locks" in done.stderr
    assert "make it writable" in done.stderr
    assert "Traceback" not in done.stderr


@NEEDS_MOUNT
@pytest.mark.parametrize("folder", ["work", "data"])
def test_what_turns_read_only_loses_nothing_and_goes_on_when_it_can_be_written_to(tmp_path, mount, folder):
    project = Project(tmp_path / "clone")
    mount(project.path / folder, 20_000)
    write_jsonl(project.path / "data/input/mine.jsonl")
    project.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl"})
    before = project.run("dvc", "repro", "preprocess")
    assert before.returncode == 0, before.stderr
    there = project.hashes("data")
    project.set_all({"preprocess.test_fraction": 0.2})
    remount(project.path / folder, "ro")
    stopped = project.run("dvc", "repro", "preprocess")
    assert stopped.returncode != 0
    assert {"work": "preprocess: error: work/", "data": f"{project.path / 'data'}"}[folder] in stopped.stderr
    assert "Traceback" not in stopped.stderr
    kept = project.hashes("data")
    assert kept.items() <= there.items()
    assert {name for name in there.keys() - kept.keys() if not name.startswith("data/clean/")} == set()
    remount(project.path / folder, "rw")
    project.set_all({"preprocess.test_fraction": SMALL["preprocess.test_fraction"]})
    again = project.run("dvc", "repro", "preprocess")
    assert again.returncode == 0, again.stderr
    assert project.hashes("data") == there
