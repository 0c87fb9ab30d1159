"""What is edited while its stage runs, or waits for its turn, is never taken for what was computed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import yaml

from tests.project import SMALL, Project, write_jsonl
from tests.test_stops import until


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    """All that comes before training is done."""
    made = Project(tmp_path_factory.mktemp("edits") / "clone")
    write_jsonl(made.path / "data/input/mine.jsonl")
    made.set_all(SMALL | {"ingest.source": "data/input/mine.jsonl", "base.budget": 200, "base.validate_every": 200})
    made.commit("params")
    assert made.run("dvc", "repro", "tokenize").returncode == 0
    return made


@pytest.fixture
def project(made) -> Iterator[Project]:
    """Parameters and code are as they were, whatever a test before this one has edited."""
    yield made
    made.git("checkout", "--quiet", ".")


def start(project: Project) -> subprocess.Popen[str]:
    log = (project.path / "edits.log").open("w")
    return subprocess.Popen(["dvc", "repro", "base"], **project.surroundings(), stdout=log, stderr=log, text=True)


def told(project: Project) -> str:
    return (project.path / "edits.log").read_text()


def locked_lr(project: Project) -> float | None:
    """The learning rate that dvc.lock has for base."""
    stage = yaml.safe_load((project.path / "dvc.lock").read_text())["stages"].get("base")
    return stage["params"]["params.yaml"]["base"]["lr"] if stage else None


def test_a_parameter_or_code_edited_while_its_stage_runs_ends_it(project):
    code = project.path / "model/hybrid.py"
    edits = {
        "base.lr": lambda: project.set(base__lr=0.002),
        "model": lambda: code.write_text(code.read_text() + "# edited\n"),
    }
    for name, edit in edits.items():
        run = start(project)
        until(lambda: "steps of" in told(project), "training")
        edit()
        assert run.wait(600) != 0
        assert f"base: error: {name} changed while base ran; run `dvc repro` again" in told(project)
        assert locked_lr(project) is None
        assert not (project.path / "artifacts/base").exists()


def test_a_parameter_edited_after_the_outputs_are_out_is_not_taken_for_theirs(project):
    """DVC looks at the parameters when the stage has ended, which takes a while: MLflow is waited for, work/ pruned."""
    project.set(base__lr=0.004, base__budget=20, base__validate_every=20)
    with held_while_it_prunes(project) as reached:
        run = start(project)
        until(reached, "the stage to prune")
        assert (project.path / "artifacts/base/metrics.json").exists()
        project.set(base__lr=0.005)
    assert run.wait(600) != 0
    assert "base: error: base.lr changed while base ran" in told(project)
    assert locked_lr(project) is None


@contextmanager
def held_while_it_prunes(project: Project) -> Iterator[Callable[[], bool]]:
    """Hold a stage up at the last that it does: it reads what each work folder is about, and here that is a pipe.

    What is yielded tells whether the stage reads; it goes on after the block.
    """
    about = project.path / "work/base/held/about.json"
    about.parent.mkdir(parents=True)
    os.mkfifo(about)
    opened: list[int] = []

    def reached() -> bool:
        with suppress(OSError):  # nobody reads yet
            opened.append(os.open(about, os.O_WRONLY | os.O_NONBLOCK))
        return bool(opened)

    try:
        yield reached
    finally:
        shutil.rmtree(about.parent)
        for pipe in opened:
            os.close(pipe)


def test_a_parameter_edited_while_its_stage_waits_is_the_one_that_counts(project):
    hold = (
        "from pathlib import Path\nfrom pipeline.work import locked\n"
        "with locked(Path('work/locks/base'), print): print('held', flush=True); input()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    holder = subprocess.Popen([sys.executable, "-c", hold], **project.surroundings(), **pipes, text=True)
    assert holder.stdout.readline() == "held\n"
    run = start(project)
    until(lambda: f"process {holder.pid} runs base here; waiting" in told(project), "the wait")
    project.set(base__lr=0.003)
    holder.communicate("\n", timeout=600)
    assert run.wait(600) == 0, told(project)
    assert locked_lr(project) == 0.003
    first = (project.path / "artifacts/base/curves/train.csv").read_text()
    project.run("python", "-m", "pipeline.work", "prune", "--all")
    assert project.run("dvc", "repro", "--force", "--single-item", "base").returncode == 0
    assert (project.path / "artifacts/base/curves/train.csv").read_text() == first
