"""A stage as a process: it ends with whoever started it, and only one of a kind runs at a time."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""Of linux/prctl.h."""

LOCKS = Path("work/locks")


def end_with_parent() -> None:
    """Have the kernel kill this process when its parent ends: no trainer goes on behind a dvc that was killed.

    Linux only; elsewhere the stage goes on until it is done.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the call
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def only_one(stage: str) -> Iterator[None]:
    """Hold the lock of `stage` in this directory; the kernel releases it however the process ends.

    Raises:
        ValueError: another process holds it.
    """
    LOCKS.mkdir(parents=True, exist_ok=True)
    with (LOCKS / stage).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(f"{stage} is running here already, as process {file.read()}; wait for it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
