"""A stage's run: what happens is appended to the event log, and that is all that a stage waits for."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from pipeline.params import Params, flatten
from pipeline.tracking.artifacts import folder_of, keep
from pipeline.tracking.events import EventLog, read_events
from pipeline.tracking.execution import VARIABLE, Execution, events_root, join_execution
from pipeline.tracking.feeding import start_feeder, wait_for_delivery
from pipeline.tracking.lineage import code_facts, datasets, describe_dataset
from pipeline.tracking.logs import FAILED, FINISHED, KILLED
from pipeline.tracking.processes import ProcessIdentity
from pipeline.tracking.redact import redact, redact_values
from pipeline.tracking.store import store_uri
from pipeline.tracking.system import SystemMetrics

LONGEST_ERROR = 2000
"""Characters of an error's message that are kept."""


class Run:
    """One stage's run. Metrics are logged against tokens seen where there are any, so that all runs compare.

    Without a log it does nothing: rank 0 speaks for all ranks.
    """

    def __init__(self, log: EventLog | None) -> None:
        self._log = log
        self._tokens = 0

    @property
    def log_path(self) -> Path:
        """The event log, for `replay`; the null device where there is none."""
        return self._log.path if self._log else Path(os.devnull)

    def log_metrics(self, metrics: Mapping[str, float], tokens: int = 0) -> None:
        """Record numbers, at `tokens` tokens seen."""
        self._tokens = max(self._tokens, tokens)
        self._append("metrics", values={key: float(value) for key, value in metrics.items()}, tokens=tokens)

    def log_system_metrics(self, metrics: Mapping[str, float]) -> None:
        """Record how busy the machine is."""
        self._append("system", values=dict(metrics), tokens=self._tokens)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Record facts that are no parameters: hashes, versions, the policy that was applied."""
        self._append("tags", values=redact_values(dict(tags)))

    def log_artifact(self, path: Path) -> None:
        """Record a file, or every file of a directory, that people will want to look at, as it is now."""
        if self._log:
            keep(self._log, path)

    def log_dataset(self, name: str, path: Path, context: str) -> None:
        """Record data that is read; `context` says what for, such as `training`."""
        if self._log:
            self._append("dataset", context=context, **asdict(describe_dataset(name, path)))

    def replay(self, events_file: Path) -> None:
        """Record again what another log of the stage tells: its work is published anew, and nothing is computed.

        Args:
            events_file: the log or a copy of it; its artifacts are taken from beside the log itself, if still there.
        """
        self._append("republished")
        artifacts = Path()
        for event in read_events(events_file):
            kind = event.pop("kind")
            event.pop("time")
            if kind == "start":
                artifacts = folder_of(events_root() / event["execution"] / event["log"])
            elif kind == "artifact" and (artifacts / event["name"]).exists():
                self.log_artifact(artifacts / event["name"])
            elif kind in ("metrics", "tags", "dataset"):
                self._append(kind, **event)

    def _append(self, kind: str, **fields: Any) -> None:
        if self._log:
            self._log.append(kind, **fields)


@contextmanager
def track(stage: str, params: Params) -> Iterator[Run]:
    """Open the run of `stage`; however the stage ends, the log says so, and a process of its own tells MLflow.

    MLflow never fails a stage nor holds it up: what it does not take stays in the log.

    Raises:
        OSError: the log itself cannot be written; the disk is full.
    """
    if os.environ.get("RANK", "0") != "0":
        yield Run(None)
        return
    uri = store_uri(params.tracking)  # first: from here on its secrets are kept
    execution = join_execution(stage, params)
    log = _new_log(execution.folder, stage)
    run = Run(log)
    status, error = FAILED, ""
    try:
        _begin(log, stage, execution, params)
        start_feeder(execution.folder, uri)
        with SystemMetrics(run.log_system_metrics):
            yield run
        status = FINISHED
    except KeyboardInterrupt:
        status = KILLED
        raise
    except BaseException as problem:
        error = redact(f"{type(problem).__name__}: {problem}")[:LONGEST_ERROR]
        raise
    finally:
        _end(log, status, error)
        if (
            status != KILLED and VARIABLE not in os.environ
        ):  # who handed the execution down waits, for all stages at once
            wait_for_delivery(execution.folder, log.path)


def _new_log(folder: Path, stage: str) -> EventLog:
    """<stage>.jsonl, or <stage>-2.jsonl and so on where the stage has run in this execution before."""
    for number in count(1):
        path = folder / (f"{stage}.jsonl" if number == 1 else f"{stage}-{number}.jsonl")
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            continue
        return EventLog(path)
    raise AssertionError("unreachable")


def _begin(log: EventLog, stage: str, execution: Execution, params: Params) -> None:
    log.append(
        "start",
        stage=stage,
        execution=execution.key,
        log=log.path.name,
        process=ProcessIdentity.of(psutil.Process()).fields(),
        params=redact_values(flatten(params)),
        code=code_facts(),
        machine={
            "machine.host": platform.node(),
            "machine.system": platform.platform(),
            "machine.cores": str(os.cpu_count()),
            "version.python": platform.python_version(),
            "version.torch": metadata.version("torch"),
        },
    )
    for dataset in datasets(stage):
        log.append("dataset", context=stage, **asdict(dataset))


def _end(log: EventLog, status: str, error: str) -> None:
    try:
        log.append("end", status=status, error=error)
    except OSError:
        if status == FINISHED:  # else the stage is about to say what went wrong first
            raise
    finally:
        log.close()
