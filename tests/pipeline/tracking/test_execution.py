"""Executions and processes: who owns what, and whether it is over."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time

import psutil
import pytest

from pipeline.params import load_params
from pipeline.tracking.events import EventLog
from pipeline.tracking.execution import VARIABLE, begin_execution, join_execution
from pipeline.tracking.lineage import code_facts
from pipeline.tracking.logs import SILENCE, ExecutionLogs, stage_status
from pipeline.tracking.processes import ProcessIdentity
from tests.pipeline.tracking.stages import Workplace


@pytest.fixture
def params(workplace, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("DVC_EXP_NAME", raising=False)
    return load_params()


def test_a_process_is_known_from_a_later_one_and_from_a_zombie():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(psutil.Process(child.pid))
    assert identity.lives()
    assert identity.is_here()
    assert not dataclasses.replace(identity, started="0").lives()
    assert not dataclasses.replace(identity, boot="another").lives()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has taken note of it
    assert not identity.lives()
    child.communicate()
    assert not identity.lives()


def test_a_process_stays_in_its_execution_and_an_opened_one_is_new(params, monkeypatch):
    first = join_execution("base", params)
    assert join_execution("finetune", params) == first
    opened = begin_execution("repro", params)
    assert opened.key not in {first.key, begin_execution("repro", params).key}
    monkeypatch.setenv(VARIABLE, opened.environment()[VARIABLE])
    assert join_execution("base", params) == opened


def test_an_experiment_gives_its_name(params, monkeypatch):
    monkeypatch.setenv("DVC_EXP_NAME", "hot")
    start = ExecutionLogs(join_execution("base", params).folder).start()
    assert start["execution_name"] == "hot"


def test_a_key_that_is_no_key_is_a_mistake(params, monkeypatch):
    monkeypatch.setenv(VARIABLE, "../elsewhere")
    with pytest.raises(ValueError, match="PIPELINE_EXECUTION"):
        join_execution("base", params)


def test_a_stage_elsewhere_lives_as_long_as_it_speaks(tmp_path, monkeypatch):
    log = EventLog(tmp_path / "base.jsonl")
    elsewhere = ProcessIdentity("another", "boot", 1, "1")
    log.append("start", stage="base", process=elsewhere.fields())
    assert stage_status(log.path) == "RUNNING"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + SILENCE + 1)
    assert stage_status(log.path) == "KILLED"


def test_the_commit_is_told_and_whether_files_differ_from_it(workplace: Workplace, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    assert code_facts() == {}
    (workplace.folder / "dvc.lock").write_text("one")
    for arguments in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "t"],
    ):
        subprocess.run(["git", *arguments], check=True)
    (workplace.folder / "dvc.lock").write_text("two")  # as every run of DVC does
    facts = code_facts()
    assert len(facts["commit"]) == 40
    assert facts["dirty"] is False
    (workplace.folder / "params.yaml").write_text("changed")
    assert code_facts()["dirty"] is True
