"""`dvc repro` as a child that is told to stop in the way it understands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from pipeline.dvcfile import read_stages
from pipeline.process import STARTED_BY, Interrupted, end_with_parent_by_kernel
from pipeline.tracking import close_execution, open_execution
from pipeline.work import keep_lock, mend

SECONDS_TO_STOP = 60


def repro(arguments: Sequence[str]) -> int:
    """Run `dvc repro` and return its exit status; that of the signal where one came."""
    for name in mend():
        print(f"{name}: cut off when dvc was killed; put right", flush=True)
    keep_lock()
    execution = open_execution("repro")
    this = os.getpid()

    def end_with_this() -> None:
        end_with_parent_by_kernel()
        if os.getppid() != this:
            os._exit(1)

    environment = os.environ | execution.environment()
    environment.pop(STARTED_BY, None)
    dvc = subprocess.Popen(
        [Path(sys.executable).with_name("dvc"), "repro", *arguments],
        env=environment,
        start_new_session=True,  # Ctrl-C comes to this process alone, which passes it on: once, and to the stage only
        preexec_fn=end_with_this,
    )
    try:
        status = dvc.wait()
    except Interrupted as stop:
        _stop(dvc, stop.signal)
        mend()
        close_execution(execution, "KILLED")
        return stop.exit_status
    mend()
    close_execution(execution, "FAILED" if status else "FINISHED")
    return status


def _stop(dvc: subprocess.Popen[bytes], number: int) -> None:
    """Pass the signal to the stage that runs; DVC ends when its stage does. DVC itself dies of SIGTERM."""
    stages = _stages(dvc.pid)
    if not stages:
        dvc.terminate()
    for stage in stages:
        with suppress(psutil.NoSuchProcess):
            stage.send_signal(number)
    try:
        dvc.wait(SECONDS_TO_STOP)
    except (subprocess.TimeoutExpired, Interrupted):
        dvc.kill()
        dvc.wait()


def _stages(dvc: int) -> list[psutil.Process]:
    """The stages' own processes below dvc, not the workers below those."""
    commands = [["-m", f"pipeline.{name}"] for name in read_stages()]
    found = []
    with suppress(psutil.NoSuchProcess):  # whoever told this process to stop may have told them, too
        for child in psutil.Process(dvc).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if child.cmdline()[1:3] in commands:
                    found.append(child)
    return found
