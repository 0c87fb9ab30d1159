"""A stage as a process: it ends with whoever started it, and stops where it can go on from when it is told to."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import psutil

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""

STARTED_BY = "PIPELINE_STARTED_BY"
"""Of the environment: the process that starts this one, where it wants to be sure that it is not survived."""

SECONDS_TO_STOP = 20
"""What a stage has to save its work in when whoever started it is gone."""


class Interrupted(KeyboardInterrupt):
    """SIGTERM, Ctrl-C or the end of the terminal; `signal` is its number."""

    def __init__(self, number: int, message: str = "") -> None:
        super().__init__(message)
        self.signal = number

    @property
    def exit_status(self) -> int:
        """As a shell has it."""
        return 128 + self.signal


_stopping = False
"""A signal has come."""
_pending: list[int] | None = None
"""Signals held back, where something holds them back."""


def stop_on_signals() -> None:
    """Let SIGTERM, SIGINT and SIGHUP raise `Interrupted`, at once or after the block of `held_back`.

    It is raised once: a batch system, dvc's end and the kernel may each send SIGTERM for the same reason. Only a
    further Ctrl-C, of somebody who does not want to wait, cuts the saving short.
    """
    global _stopping
    _stopping = False
    signal.signal(signal.SIGTERM, _on_signal)
    signal.signal(signal.SIGINT, _on_signal)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # of `nohup`
        signal.signal(signal.SIGHUP, _on_signal)


@contextmanager
def held_back() -> Iterator[Callable[[], int | None]]:
    """Hold signals back to the end of the block; the function that is yielded tells of one that came."""
    global _pending
    pending: list[int] = []
    _pending = pending
    try:
        yield lambda: pending[0] if pending else None
    finally:
        _pending = None
    if pending:
        raise Interrupted(pending[0])


def end_with_parent() -> None:
    """Send this process SIGTERM when the one that started it, or the `dvc` above it, ends; and SIGKILL soon after.

    No trainer goes on behind a dvc that was killed. On Linux the kernel sends the signal; elsewhere a thread looks.

    Raises:
        Interrupted: it has ended already, while this process was starting.
    """
    parent = os.getppid()
    end_with_parent_by_kernel()
    above = [process for process in psutil.Process().parents() if is_dvc(process)]
    by_dvc = "DVC_ROOT" in os.environ and "DVC_STAGE" in os.environ
    if os.environ.get(STARTED_BY, str(parent)) != str(parent) or (by_dvc and not above):
        raise Interrupted(signal.SIGTERM, " before it began: what started it has ended")
    watched = [psutil.Process(parent)] if psutil.pid_exists(parent) else []
    watched += [process for process in above if process.pid != parent]
    threading.Thread(target=_watch, args=(parent, watched), daemon=True).start()


def end_with_parent_by_kernel() -> None:
    """The kernel's part of `end_with_parent`; of use between fork and exec, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def is_dvc(process: psutil.Process) -> bool:
    """Whether a process is the command `dvc`."""
    try:
        words = process.cmdline()[:3]
    except psutil.Error:
        return False
    return any(word.rsplit("/", 1)[-1] == "dvc" for word in words)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _stopping
    impatient = _stopping and number == signal.SIGINT
    if _pending is not None and not impatient:
        _pending.append(number)
    elif impatient or not _stopping:
        _stopping = True
        raise Interrupted(number)
    _stopping = True


def _watch(parent: int, watched: list[psutil.Process]) -> None:
    while os.getppid() == parent and all(_lives(process) for process in watched):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_STOP)
    os.kill(os.getpid(), signal.SIGKILL)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
