"""Which process wrote a log, told so that nobody else can be taken for it."""

from __future__ import annotations

import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of a boot of a host; `started` tells it from a later one with the same number."""

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def of(cls, process: psutil.Process) -> ProcessIdentity:
        return cls(socket.gethostname(), _boot(), process.pid, _started(process.pid) or "ended")

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> ProcessIdentity:
        return cls(**fields)

    def fields(self) -> dict[str, Any]:
        return asdict(self)

    def is_here(self) -> bool:
        """Whether this machine can know if the process lives."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        return self.boot == _boot() and _started(self.pid) == self.started


def _boot() -> str:
    return BOOT.read_text().strip() if BOOT.exists() else ""


def _started(pid: int) -> str | None:
    """When a process began, as this boot of the machine counts; None if it has ended.

    On Linux in clock ticks since the boot, which no setting of the clock changes.
    """
    if sys.platform == "linux":
        try:
            state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "ZX" else rest[18]
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None
