"""Between a stage and the feeder of its execution: starting it, and waiting a moment for what it has delivered."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from pipeline.work.root import work_root

STAGE_PATIENCE, EXECUTION_PATIENCE = 6.0, 15.0
"""Seconds that the end of a stage, and that of an execution, waits for MLflow at most."""

STARTING, UP, DOWN, DONE = "starting", "up", "down", "done"


@dataclass
class FeederStatus:
    """What the feeder of an execution last said: feeder.json in its folder."""

    state: str = STARTING
    why: str = ""
    delivered: dict[str, int] = field(default_factory=dict)
    """Bytes of each log, by its stem."""

    def write(self, folder: Path) -> None:
        draft = folder / "feeder.json.draft"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(folder / "feeder.json")

    @classmethod
    def read(cls, folder: Path) -> FeederStatus:
        try:
            return cls(**json.loads((folder / "feeder.json").read_text()))
        except (OSError, ValueError, TypeError):  # it has said nothing yet, or something of another version
            return cls()


def start_feeder(folder: Path, uri: str) -> None:
    """Have a process deliver the logs in `folder` to `uri` while the execution lasts, unless one does so already.

    It inherits the lock that it holds as long as it lives, and nothing else of this process.
    """
    with _lock(folder) as lock:
        if not _take(lock):
            return
        FeederStatus().write(folder)
        environment = os.environ | {
            "MLFLOW_TRACKING_URI": uri,  # not in the command line, where everybody can read it
            "PYTHONPATH": os.pathsep.join(filter(None, [str(_code()), os.environ.get("PYTHONPATH", "")])),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with (folder / "feeder.log").open("a") as log:
            subprocess.Popen(
                [sys.executable, "-m", "pipeline.tracking.feeder", str(folder.resolve())],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[lock.fileno()],
            )


def feeder_runs(folder: Path) -> bool:
    """Whether the feeder of an execution runs."""
    with _lock(folder) as lock:
        return not _take(lock)


def _lock(folder: Path) -> IO[str]:
    return (folder / "feeder.lock").open("a")


def _take(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _code() -> Path:
    """Where the feeder's code is: in the main repository, because DVC's temporary copies go before the feeder does."""
    main = work_root().resolve().parent
    return main if (main / "pipeline/tracking/feeder.py").is_file() else Path(__file__).parents[2]


def wait_for_delivery(folder: Path, log: Path | None = None) -> None:
    """Wait a moment until MLflow has `log`, or all there is to deliver; if it does not answer, say what to do."""
    deadline = time.monotonic() + (STAGE_PATIENCE if log else EXECUTION_PATIENCE)
    while time.monotonic() < deadline:
        running = feeder_runs(folder)
        status = FeederStatus.read(folder)
        if log is not None and status.delivered.get(log.stem, 0) >= log.stat().st_size:
            return
        if status.state == DOWN or not running:
            if status.state != DONE:
                print(
                    f"warning: MLflow has not taken this run yet ({status.why or 'its feeder was ended'}). "
                    f"It is kept in {log or folder}; later, `python -m pipeline.tracking sync` brings it over.",
                    file=sys.stderr,
                )
            return
        time.sleep(0.05)
