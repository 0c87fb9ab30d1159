"""The feeder: a process beside an execution that delivers its logs to MLflow as they grow.

It ends by itself: soon after the execution, or, where MLflow does not answer, a few seconds later. What is left then
stays in the logs until `python -m pipeline.tracking sync`.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from io import TextIOBase
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.dvclock import LOCK
from pipeline.tracking.cached import note_lock
from pipeline.tracking.cursor import Cursor
from pipeline.tracking.events import last_event
from pipeline.tracking.feeding import DONE, DOWN, UP, FeederStatus
from pipeline.tracking.logs import ExecutionLogs
from pipeline.tracking.redact import redact
from pipeline.tracking.store import QUIET, check, store_key
from pipeline.work import mend

if TYPE_CHECKING:
    from pipeline.tracking.exporter import Exporter

POLL = 0.5
"""Seconds between two looks at the logs; a look costs a millisecond."""
INTERVAL = 10.0
"""Seconds between two deliveries while a stage goes on."""
TIMEOUT = 3.0
"""Seconds in which a server has to answer before anything is sent to it."""
LONGEST_PAUSE = 60.0
"""Seconds between two attempts when MLflow is down."""
LAST_WORDS = 10.0
"""Seconds after the end of the execution in which what MLflow did not take is tried again."""
STUCK = 60.0
"""Seconds after the end of the execution without any progress after which the feeder ends, whatever it waits for."""
LONGEST_REASON = 300


class Feeder:
    """Delivers the logs in `folder` to `uri` until the execution is over."""

    def __init__(self, folder: Path, uri: str) -> None:
        self._logs = ExecutionLogs(folder)
        self._uri = uri
        self._exporter: Exporter | None = None
        self._delivered: dict[Path, int] = {}
        self._reached = False
        self._failures = 0
        self._next = 0.0
        self._progress = time.monotonic()
        self._lock_seen: tuple[int, int] | None = None

    def run(self) -> None:
        threading.Thread(target=self._look_after_the_end, name="end", daemon=True).start()
        while not self._logs.is_over():
            self._note_lock()
            sizes = self._sizes()
            new = [path for path in sizes if sizes[path] != self._delivered.get(path)]
            hurry = not self._failures and any(_has_ended(path) for path in new)
            if hurry or (new and time.monotonic() >= self._next):
                self._deliver(sizes, UP)
            time.sleep(POLL)
        self._mend()
        note_lock(self._logs, final=True)  # DVC writes it once more at the very end
        deadline = time.monotonic() + LAST_WORDS
        while not self._deliver(self._sizes(), DONE) and self._reached and time.monotonic() < deadline:
            time.sleep(1)

    def _sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self._logs.all()}

    def _deliver(self, sizes: dict[Path, int], state: str) -> bool:
        """Whether MLflow took all there was; `state` is to be said then."""
        self._reached = False
        try:
            check(self._uri, TIMEOUT)
            self._reached = True
            if self._exporter is None:
                from pipeline.tracking.exporter import Exporter

                self._exporter = Exporter(self._uri, self._note_progress)
            self._exporter.deliver(self._logs)
        except Exception as error:  # whatever it is, it must not end the feeder: there is a next time
            self._failures += 1
            self._next = time.monotonic() + min(LONGEST_PAUSE, 2.0 ** (self._failures - 1))
            self._say(DOWN, f"{type(error).__name__}: {error}")
            return False
        self._failures = 0
        self._next = time.monotonic() + INTERVAL
        self._delivered = sizes
        self._say(state)
        return True

    def _note_lock(self) -> None:
        """Note a dvc.lock that has changed."""
        try:
            stat = (self._workspace() / LOCK).stat()
        except OSError:
            return
        if self._lock_seen != (stat.st_mtime_ns, stat.st_size):
            self._lock_seen = (stat.st_mtime_ns, stat.st_size)
            note_lock(self._logs)

    def _workspace(self) -> Path:
        start = self._logs.start()
        assert start is not None
        return Path(start["workspace"])

    def _mend(self) -> None:
        with suppress(OSError):
            mend(self._workspace())

    def _note_progress(self) -> None:
        self._progress = time.monotonic()

    def _look_after_the_end(self) -> None:
        """When the execution is over, put right what a killed dvc left at once, and do not wait for MLflow for ever."""
        while True:
            while not self._logs.is_over():
                self._note_progress()
                time.sleep(POLL)
            self._mend()
            if time.monotonic() - self._progress > STUCK:
                self._say(DOWN, "it does not answer")
                os._exit(1)
            time.sleep(1)

    def _say(self, state: str, why: str = "") -> None:
        logs = Cursor.load(self._logs.folder, store_key(self._uri)).logs
        why = redact(" ".join(why.split()))[:LONGEST_REASON]
        FeederStatus(state, why, {stem: log.offset for stem, log in logs.items()}).write(self._logs.folder)
        if why:
            print(time.strftime("%Y-%m-%d %H:%M:%S"), state, why, flush=True)


def _has_ended(log: Path) -> bool:
    last = last_event(log)
    return last is not None and last["kind"] == "end"


class _RedactedText(TextIOBase):
    """A stream that no secret passes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redact(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def main() -> None:
    """`python -m pipeline.tracking.feeder FOLDER`, started by `start_feeder`, which hands it the lock and the store."""
    os.nice(10)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    sys.stdout, sys.stderr = _RedactedText(sys.stdout), _RedactedText(sys.stderr)
    Feeder(Path(sys.argv[1]), os.environ["MLFLOW_TRACKING_URI"]).run()


if __name__ == "__main__":
    main()
