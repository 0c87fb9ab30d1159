"""A stage ends with its parent, and runs alone."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.process import only_one

ROOT = Path(__file__).parents[2]


def test_only_one_process_runs_a_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "from pipeline.process import only_one\nwith only_one('base'): print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"base is running here already, as process {other.pid}"), only_one("base"):
        pass
    with only_one("finetune"):
        pass
    other.kill()
    other.wait()
    with only_one("base"):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's alone")
def test_a_stage_ends_with_the_process_that_started_it(tmp_path):
    stage = (
        "import time; from pipeline.process import end_with_parent; end_with_parent(); "
        "print('on', flush=True); time.sleep(60)"
    )
    parent = (
        f"import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', {stage!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the stage lives on"
        time.sleep(0.05)
