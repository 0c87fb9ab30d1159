"""Ctrl-C and SIGTERM, as terminals and batch systems send them: work is saved, nothing is left, and it goes on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from tests.project import SMALL, Project, write_jsonl

LONG = {"ingest.source": "data/input/mine.jsonl", "base.budget": 3000, "base.validate_every": 1000}
MAKE = ("make", "-o", ".venv/.ready", "repro")
DVC = ("dvc", "repro")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Project:
    """All that comes before training is done."""
    made = Project(tmp_path_factory.mktemp("stops") / "clone")
    write_jsonl(made.path / "data/input/mine.jsonl")
    made.set_all(SMALL | LONG)
    assert made.run("dvc", "repro", "tokenize").returncode == 0
    return made


@pytest.mark.parametrize(
    ("command", "number", "to"),
    [
        (MAKE, signal.SIGINT, "group"),  # a terminal
        (DVC, signal.SIGINT, "group"),
        (MAKE, signal.SIGHUP, "group"),  # a terminal that is closed
        (DVC, signal.SIGHUP, "group"),
        (MAKE, signal.SIGTERM, "process"),  # `kill`, a batch system
        (MAKE, signal.SIGTERM, "everything"),  # systemd, a container's end
        (DVC, signal.SIGTERM, "everything"),
        (DVC, signal.SIGTERM, "process"),  # dvc dies, and takes its stage along
    ],
)
def test_a_stopped_run_has_saved_its_work(project, command, number, to):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, here and in what is started
    before = interrupted_at(project)
    log = project.path / "stops.log"
    with log.open("w") as out:
        run = subprocess.Popen(command, **project.surroundings(), stdout=out, stderr=out, start_new_session=True)
    until(lambda: "steps of" in log.read_text(), "training")
    time.sleep(1.0)
    family = psutil.Process(run.pid).children(recursive=True)
    if to == "group":
        os.killpg(run.pid, number)
    else:
        run.send_signal(number)
    if to == "everything":
        for process in family:
            process.send_signal(number)
    assert run.wait(600) != 0
    until(lambda: not any(process.is_running() for process in family), "all to end")
    text = log.read_text()
    assert "Traceback" not in text
    found = re.search(r"base: interrupted at step (\d+) of 3000; `dvc repro` goes on", text)
    assert found, text
    step = int(found[1])
    assert step > before
    assert ("going on after step" in text) == (before > 0)
    assert interrupted_at(project) == step  # a checkpoint of the very step


def interrupted_at(project: Project) -> int:
    """The step that `python -m pipeline.status` names, 0 where nothing was interrupted."""
    shown = project.run("python", "-m", "pipeline.status").stdout
    found = re.search(r"^base +interrupted +at step (\d+) of 3000", shown, re.MULTILINE)
    return int(found[1]) if found else 0


def until(holds, what: str) -> None:
    deadline = time.monotonic() + 600  # far more than it takes: the machine may be busy
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.1)
