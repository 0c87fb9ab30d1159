"""The append-only event log: one JSON object a line, one file per stage of an execution."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]

TAIL = 1 << 13
"""Bytes in which the last event of a log is looked for first."""


class EventLog:
    """Appends events to `path`: each with one write, from any thread, a few microseconds each.

    A line that a crash or a full disk cut off is closed by the next append, and left out by the readers below.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._lock = threading.Lock()
        size = os.fstat(self._descriptor).st_size
        self._cut = size > 0 and os.pread(self._descriptor, 1, size - 1) != b"\n"

    def append(self, kind: str, **fields: Any) -> None:
        """Add one event with the present time (seconds since the epoch).

        Raises:
            OSError: the disk is full.
        """
        line = json.dumps({"kind": kind, "time": time.time(), **fields}, sort_keys=True).encode() + b"\n"
        with self._lock:
            whole = b"\n" + line if self._cut else line
            self._cut = True  # until the write below is known to be complete
            written = os.write(self._descriptor, whole)
            if written < len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._cut = False

    def close(self) -> None:
        with self._lock:
            os.close(self._descriptor)


def read_events(path: Path) -> Iterator[Event]:
    """The events of a log, oldest first."""
    for event, _ in read_from(path, 0):
        yield event


def read_from(path: Path, offset: int) -> Iterator[tuple[Event, int]]:
    """The events from byte `offset` on, each with the offset behind it."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return  # being written; reading on would take its rest for a line of its own
            offset += len(line)
            if (event := _parse(line)) is not None:
                yield event, offset


def first_event(path: Path) -> Event | None:
    """The `start` of a log; None where nothing stands in it yet, or its beginning is damaged."""
    first = next(read_events(path), None) if path.is_file() else None
    return first if first and first["kind"] == "start" else None


def is_damaged(path: Path) -> bool:
    """Whether something stands in a log, and no `start` before it."""
    with path.open("rb") as file:
        return any(line.endswith(b"\n") for line in file) and first_event(path) is None


def last_event(path: Path) -> Event | None:
    """None where nothing stands in the log yet; reads no more than the end of the file where that will do."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        for start in (max(0, size - TAIL), 0):
            file.seek(start)
            for line in reversed(file.read().splitlines(keepends=True)):
                if line.endswith(b"\n") and (event := _parse(line)) is not None:
                    return event
    return None


def _parse(line: bytes) -> Event | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"kind", "time"} <= event.keys() else None
