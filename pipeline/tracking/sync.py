"""Bring over to MLflow what it does not have yet: after an outage, or from a machine without a network."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pipeline.tracking.cached import has_final_lock, note_lock
from pipeline.tracking.events import is_damaged
from pipeline.tracking.logs import ExecutionLogs, find_executions, find_logs
from pipeline.tracking.redact import redact
from pipeline.tracking.store import QUIET, check

TIMEOUT = 10.0
"""Seconds in which the server has to answer at all."""


def sync(root: Path, uri: str) -> None:
    """Deliver every execution in `root` to `uri`, a line for each.

    Raises:
        ValueError: there is nothing here, or MLflow does not answer or does not take it.
    """
    executions = list(find_executions(root))
    damaged = sorted(filter(is_damaged, find_logs(root, "*")))
    for path in damaged:
        print(f"warning: {path}: its beginning is damaged, so nobody knows whose it is; left out", file=sys.stderr)
    if not executions:
        raise ValueError(f"{root}: no event logs here; give the folder work/events of the runs")
    try:
        check(uri, TIMEOUT)
    except ConnectionError as error:
        raise ValueError(f"MLflow at {redact(uri)} does not answer: {error}; nothing was sent") from None
    _note_present_lock(executions)
    for name, value in {**QUIET, "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}.items():
        os.environ.setdefault(name, value)
    from pipeline.tracking.exporter import Exporter

    try:
        exporter = Exporter(uri)
        for experiment in sorted({_name(logs, "experiment") for logs in executions}):
            exporter.look_ahead(experiment)
    except Exception as error:  # it answers, and yet is no MLflow, or a broken one
        raise ValueError(f"MLflow at {redact(uri)} does not take it: {_words(error)}; nothing was sent") from None
    total, refused = 0, 0
    for logs in executions:
        try:
            events = exporter.deliver(logs)
            outcome = (
                "deleted in MLflow" if events is None else f"{events:,} events delivered" if events else "already there"
            )
        except PermissionError as error:
            events, refused = 0, refused + 1
            outcome = (
                f"{error.filename} cannot be written (it notes what is delivered); copy the logs and sync the copy"
            )
        except Exception as error:  # the next execution may fare better
            events, refused = 0, refused + 1
            outcome = f"MLflow does not take it: {_words(error)}"
        total += events or 0
        print(f"{_name(logs, 'execution_name')} ({logs.folder.name}): {outcome}", flush=True)
    print(f"{len(executions)} executions, {total:,} events delivered to {redact(uri)}", flush=True)
    if refused:
        raise ValueError(f"{refused} of {len(executions)} executions are not at MLflow yet, see above; then sync again")


def _words(error: Exception) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__


def _note_present_lock(executions: list[ExecutionLogs]) -> None:
    """dvc.lock as it is says what the last execution in this folder ended with, if its feeder was killed before that.

    Where the feeder noted it, a dvc.lock that is different now is another's: of a commit that was checked out since.
    """
    here = str(Path.cwd())
    last = next((logs for logs in reversed(executions) if logs.began_here() and _name(logs, "workspace") == here), None)
    if last is not None and last.is_over() and not has_final_lock(last):
        note_lock(last, final=True)


def _name(logs: ExecutionLogs, key: str) -> str:
    start = logs.start()
    assert start is not None, logs.folder
    return str(start[key])
