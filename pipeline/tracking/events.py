"""The append-only event log: one JSON object a line, one file per stage of an execution."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events to `path`; a line is written whole or, after a crash, ignored by `read_events`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a", encoding="utf-8")

    def append(self, kind: str, **fields: Any) -> None:
        """Add one event with the present time (seconds since the epoch)."""
        event = {"kind": kind, "time": time.time(), **fields}
        self._file.write(json.dumps(event, sort_keys=True) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a log, oldest first; a last line that a crash cut off is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)
