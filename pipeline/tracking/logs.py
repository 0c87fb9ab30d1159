"""The logs of one execution, and what they say of its state: work/events/<execution>/."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from pipeline.tracking.events import Event, first_event, last_event, read_events
from pipeline.tracking.processes import ProcessIdentity

EXECUTION = "execution"
"""The stem of the log of the execution itself; the other logs are its stages'."""

SILENCE = 60.0
"""Seconds without an event after which a stage on another machine counts as dead; a live one logs every 10 s."""

RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"


class ExecutionLogs:
    """The folder of an execution, read anew at each call."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own = folder / f"{EXECUTION}.jsonl"

    def start(self) -> Event | None:
        """None where the execution is only about to begin, or the folder is no execution's."""
        return first_event(self.own)

    def began_here(self) -> bool:
        """Whether it is an execution of this machine."""
        start = self.start()
        return start is not None and ProcessIdentity.from_fields(start["process"]).is_here()

    def stages(self) -> list[Path]:
        """The logs of the stages that have begun, in that order."""
        begun = {
            path: first for path in self.folder.glob("*.jsonl") if path != self.own and (first := first_event(path))
        }
        return sorted(begun, key=lambda path: float(begun[path]["time"]))

    def all(self) -> list[Path]:
        return [self.own, *self.stages()]

    def status(self) -> str:
        """RUNNING until it is over; then the worst of its stages' ends and its own."""
        if not self.is_over():
            return RUNNING
        ends = {stage_status(path) for path in self.stages()} | {self._end().get("status", FINISHED)}
        return next((status for status in (FAILED, KILLED) if status in ends), FINISHED)

    def is_over(self) -> bool:
        """Whether it said so or its process has ended, and none of its stages runs any more."""
        start = self.start()
        if start is None or any(stage_status(path) == RUNNING for path in self.stages()):
            return False
        return bool(self._end()) or not _lives(start, self.last_time())

    def last_time(self) -> float:
        """When the last thing happened."""
        return max((float(event["time"]) for path in self.all() if (event := last_event(path))), default=0.0)

    def _end(self) -> Event:
        return next((event for event in read_events(self.own) if event["kind"] == "end"), {})


def stage_status(path: Path) -> str:
    """How a stage ended; KILLED where its process has gone without a word."""
    start, last = first_event(path), last_event(path)
    assert start, path
    assert last, path
    if last["kind"] == "end":
        return str(last["status"])
    return RUNNING if _lives(start, float(last["time"])) else KILLED


def stage_of(path: Path) -> str:
    """The stage that a log is of."""
    start = first_event(path)
    assert start is not None, path
    return str(start["stage"])


def find_logs(root: Path, stem: str) -> set[Path]:
    """The logs of this stem (a pattern) in `root`, which may be an execution itself, or hold work/ or events/."""
    return {path for depth in ("", "*/", "events/*/", "work/events/*/") for path in root.glob(f"{depth}{stem}.jsonl")}


def find_executions(root: Path) -> Iterator[ExecutionLogs]:
    """The executions in `root` (as in `find_logs`), oldest first."""
    found = {path.parent for path in find_logs(root, EXECUTION)}
    begun = [(start["time"], logs) for folder in found if (start := (logs := ExecutionLogs(folder)).start())]
    for _, logs in sorted(begun, key=lambda pair: pair[0]):
        yield logs


def _lives(start: Event, last_time: float) -> bool:
    process = ProcessIdentity.from_fields(start["process"])
    return process.lives() if process.is_here() else time.time() - last_time < SILENCE
