"""The run of a whole execution, for whoever starts its stages: `make repro`."""

from __future__ import annotations

from pipeline.params import load_params
from pipeline.tracking.events import EventLog
from pipeline.tracking.execution import Execution, begin_execution
from pipeline.tracking.feeding import start_feeder, wait_for_delivery
from pipeline.tracking.logs import EXECUTION
from pipeline.tracking.store import store_uri


def open_execution(name: str) -> Execution:
    """Begin an execution of the pipeline; hand its `environment()` to `dvc`, and close it at the end.

    Raises:
        ValueError: a mistake in params.yaml.
    """
    params = load_params()
    execution = begin_execution(name, params)
    start_feeder(execution.folder, store_uri(params.tracking))
    return execution


def close_execution(execution: Execution, status: str) -> None:
    """Note how the execution ended (FINISHED, FAILED, KILLED), and wait a moment for MLflow to have all of it."""
    log = EventLog(execution.folder / f"{EXECUTION}.jsonl")
    log.append("end", status=status)
    log.close()
    wait_for_delivery(execution.folder)
