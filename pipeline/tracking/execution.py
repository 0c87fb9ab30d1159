"""Which execution of the pipeline a stage belongs to: all that one `make repro` or one `dvc` starts share a run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from pipeline.params import Params, flatten
from pipeline.process import is_dvc
from pipeline.tracking.artifacts import keep_text
from pipeline.tracking.events import EventLog
from pipeline.tracking.lineage import code_facts
from pipeline.tracking.logs import EXECUTION, ExecutionLogs
from pipeline.tracking.processes import ProcessIdentity
from pipeline.tracking.redact import redact, redact_values
from pipeline.work.root import work_root

VARIABLE = "PIPELINE_EXECUTION"
"""Of the environment: the key of the execution that the stages of a process belong to."""


def events_root() -> Path:
    """The folder of all executions."""
    return work_root() / "events"


@dataclass(frozen=True)
class Execution:
    """`key` is the same for all its stages and for no other execution, on whatever machine."""

    key: str
    folder: Path

    def environment(self) -> dict[str, str]:
        """What to hand to the processes whose stages belong to it."""
        return {VARIABLE: self.key}


def begin_execution(name: str, params: Params) -> Execution:
    """A new execution, owned by this process."""
    this = psutil.Process()
    return _enter(this, name, params, _key(time.time(), ProcessIdentity.of(this), str(time.time_ns())))


def join_execution(stage: str, params: Params) -> Execution:
    """The execution that this process belongs to: the one handed down, that of the `dvc` above, or its own.

    Raises:
        ValueError: what is handed down is no key.
    """
    key = os.environ.get(VARIABLE, "")
    if key and not re.fullmatch(r"\w[\w.-]*", key):
        raise ValueError(f"{VARIABLE} is {key!r}, which is no execution's key; unset it")
    this = psutil.Process()
    dvc = next((process for process in this.parents() if is_dvc(process)), None)
    owner = dvc or this
    name = "repro" if dvc or key else stage
    key = key or _key(owner.create_time(), ProcessIdentity.of(owner), os.environ.get("DVC_EXP_NAME", ""))
    return _enter(owner, name, params, key)


def _key(began: float, owner: ProcessIdentity, more: str) -> str:
    """Time first, for people; but clocks change: what an execution is found again by is the hash."""
    digest = hashlib.sha256(repr((owner, more)).encode()).hexdigest()[:12]
    found = next(events_root().glob(f"*-{digest}"), None)
    return found.name if found else f"{time.strftime('%Y%m%dT%H%M%S', time.localtime(began))}-{digest}"


def _enter(owner: psutil.Process, name: str, params: Params, key: str) -> Execution:
    """Open the execution with `key`; the first to come writes how it began."""
    root = events_root()
    execution = Execution(key, root / key)
    execution.folder.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ExecutionLogs(execution.folder).start() is None:
            _begin(execution, ProcessIdentity.of(owner), name, params)
    return execution


def _begin(execution: Execution, owner: ProcessIdentity, name: str, params: Params) -> None:
    experiment = os.environ.get("DVC_EXP_NAME", "")
    log = EventLog(execution.folder / f"{EXECUTION}.jsonl")
    log.append(
        "start",
        execution=execution.key,
        execution_name=experiment or f"{name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
        experiment=params.tracking.experiment,
        process=owner.fields(),
        params=redact_values(flatten(params)),
        code=code_facts(),
        workspace=str(Path.cwd()),
        dvc_experiment=experiment,
        dvc_baseline=os.environ.get("DVC_EXP_BASELINE_REV", ""),
    )
    config = Path("params.yaml")
    if config.is_file():
        keep_text(log, config.name, redact(config.read_text(encoding="utf-8")))
    log.close()
