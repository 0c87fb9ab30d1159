"""Event log -> MLflow: a parent run per execution, a nested child run per stage."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from pipeline.tracking.events import read_events

logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new database is no news to the user of a stage
BATCH = 900  # metrics per request; the server refuses more than 1,000


def export(log: Path, uri: str, experiment: str) -> None:
    """Write the run that `log` tells of to the MLflow server or database at `uri`."""
    events = list(read_events(log))
    start, end = events[0], events[-1]
    client = MlflowClient(tracking_uri=uri)
    experiment_id = _experiment(client, experiment)
    parent = _parent_run(client, experiment_id, start)
    child = client.create_run(
        experiment_id,
        start_time=_milliseconds(start),
        tags={
            MLFLOW_PARENT_RUN_ID: parent.info.run_id,
            MLFLOW_RUN_NAME: start["stage"],
            "stage": start["stage"],
        },
    )
    _log_events(client, child.info.run_id, events)
    _log_artifacts(client, child.info.run_id, events)
    client.set_terminated(child.info.run_id, end["status"], end_time=_milliseconds(end))
    # The parent shows what its stages came to, so that executions compare in one table.
    _log_events(client, parent.info.run_id, events, prefix=f"{start['stage']}/")
    client.set_terminated(parent.info.run_id, end["status"], end_time=_milliseconds(end))


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    sqlite = client.tracking_uri.removeprefix("sqlite:///")
    local = sqlite != client.tracking_uri
    return client.create_experiment(name, (Path(sqlite).resolve().parent / "mlartifacts").as_uri() if local else None)


def _parent_run(client: MlflowClient, experiment_id: str, start: dict[str, Any]) -> Run:
    """The execution's parent run; the first stage to end makes it."""
    found = client.search_runs([experiment_id], f"tags.execution = '{start['execution']}'", max_results=1)
    if found:
        return found[0]
    return client.create_run(
        experiment_id,
        start_time=_milliseconds(start),
        tags={MLFLOW_RUN_NAME: start["execution_name"], "execution": start["execution"]},
    )


def _log_events(client: MlflowClient, run_id: str, events: list[dict[str, Any]], prefix: str = "") -> None:
    params = [Param(key, str(value)) for key, value in events[0]["params"].items()]
    tags = [
        RunTag(prefix + key, value)
        for event in events
        if event["kind"] == "tags"
        for key, value in event["values"].items()
    ]
    metrics = [
        Metric(prefix + key, float(value), _milliseconds(event), event["tokens"])
        for event in events
        if event["kind"] == "metrics"
        for key, value in event["values"].items()
    ]
    client.log_batch(run_id, params=params, tags=tags)
    for first in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[first : first + BATCH])


def _log_artifacts(client: MlflowClient, run_id: str, events: list[dict[str, Any]]) -> None:
    for event in events:
        if event["kind"] == "artifact":
            path = Path(event["path"])
            if path.is_dir():
                client.log_artifacts(run_id, str(path), artifact_path=path.name)
            else:
                client.log_artifact(run_id, str(path))


def _milliseconds(event: dict[str, Any]) -> int:
    return int(event["time"] * 1000)
