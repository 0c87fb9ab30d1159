"""A stage ends with its parent, and stops when it is told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.process import Interrupted, held_back, stop_on_signals

ROOT = Path(__file__).parents[2]
STAGE = """
import sys, time
from pipeline.process import *
stop_on_signals()
end_with_parent()
try:
    print("on", flush=True)
    time.sleep(60)
except Interrupted as stop:
    open(sys.argv[1], "w").write(str(stop.signal))
"""
PARENT = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def signals():
    old = {kind: signal.getsignal(kind) for kind in (signal.SIGTERM, signal.SIGINT)}
    stop_on_signals()
    yield
    for kind, handler in old.items():
        signal.signal(kind, handler)


def test_a_stage_is_told_when_the_process_that_started_it_ends(tmp_path):
    stage = [sys.executable, "-c", STAGE, str(tmp_path / "stopped by")]
    parent = start(sys.executable, "-c", PARENT, *stage)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    wait_until_gone(child)
    assert (tmp_path / "stopped by").read_text() == str(int(signal.SIGTERM))


def test_a_stage_is_told_when_the_dvc_above_its_parent_ends(tmp_path):
    dvc = tmp_path / "dvc"  # a script of that name, with a shell between it and the stage
    dvc.write_text(PARENT)
    stage = [sys.executable, "-c", STAGE, str(tmp_path / "stopped by")]
    parent = start(sys.executable, str(dvc), sys.executable, "-c", PARENT, *stage)
    assert parent.stdout is not None
    shell = psutil.Process(int(parent.stdout.readline()))
    (child,) = shell.children()
    parent.kill()
    parent.wait()
    wait_until_gone(child.pid)
    assert (tmp_path / "stopped by").read_text() == str(int(signal.SIGTERM))
    shell.kill()


def test_a_signal_raises_once(signals):
    with pytest.raises(Interrupted) as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.value.exit_status == 143
    os.kill(os.getpid(), signal.SIGTERM)  # of dvc's end, say, while the first one's work is being saved
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGINT)  # of somebody who does not want to wait


def test_signals_are_held_back_to_the_end_of_a_block(signals):
    done = []

    def work():
        with held_back() as told:
            assert told() is None
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            assert told() == signal.SIGINT
            done.append("to the end")

    with pytest.raises(Interrupted) as stop:
        work()
    assert done == ["to the end"]
    assert stop.value.exit_status == 130


def test_a_second_ctrl_c_does_not_wait_for_the_end_of_the_block(signals):
    done = []

    def work():
        with held_back():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            done.append("went on")

    with pytest.raises(Interrupted):
        work()
    assert not done


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}, text=True)


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it lives on"
        time.sleep(0.05)
