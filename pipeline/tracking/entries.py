"""Events -> what MLflow's client takes: names, lengths of values and sizes of batches that it accepts."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT
from mlflow.utils.validation import (
    MAX_DATASET_DIGEST_SIZE,
    MAX_ENTITY_KEY_LENGTH,
    MAX_METRICS_PER_BATCH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
)

from pipeline.tracking.events import Event

MAX_TAG_LENGTH = 5000
"""Of a value; what MLflow took before it took 8,000."""


def log_params(client: MlflowClient, run: str, params: Mapping[str, Any]) -> None:
    listed = [Param(_name(key), str(value)[:MAX_PARAM_VAL_LENGTH]) for key, value in params.items()]
    for first in range(0, len(listed), MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run, params=listed[first : first + MAX_PARAMS_TAGS_PER_BATCH])


def log_tags(client: MlflowClient, run: str, tags: Mapping[str, Any]) -> None:
    listed = [RunTag(key, value) for key, value in clean_tags(tags).items()]
    for first in range(0, len(listed), MAX_PARAMS_TAGS_PER_BATCH):
        client.log_batch(run, tags=listed[first : first + MAX_PARAMS_TAGS_PER_BATCH])


def clean_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {_name(key): str(value)[:MAX_TAG_LENGTH] for key, value in tags.items()}


def log_metrics(client: MlflowClient, run: str, events: Iterable[Event], prefix: str = "") -> None:
    """The values of `metrics` and `system` events, at the tokens and the time that they tell."""
    listed = [
        Metric(_name(prefix + key), float(value), milliseconds(event["time"]), event["tokens"])
        for event in events
        for key, value in event["values"].items()
    ]
    for first in range(0, len(listed), MAX_METRICS_PER_BATCH):
        client.log_batch(run, metrics=listed[first : first + MAX_METRICS_PER_BATCH])


def log_dataset(client: MlflowClient, run: str, event: Event) -> None:
    """A `dataset` event as an input of the run."""
    data = Dataset(
        name=event["name"],
        digest=event["digest"][:MAX_DATASET_DIGEST_SIZE],
        source_type="local",
        source=json.dumps({"uri": event["source"]}),
        schema=_schema(event["schema"]),
        profile=json.dumps(event["profile"]),
    )
    client.log_inputs(run, [DatasetInput(data, [InputTag(MLFLOW_DATASET_CONTEXT, event["context"])])])


def milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _schema(kinds: Mapping[str, Mapping[str, str]] | None) -> str | None:
    """A manifest's schema, columns and types by kind, in the form that MLflow's pages show."""
    if kinds is None:
        return None
    columns = [
        {"name": f"{kind}.{column}", "type": dtype, "required": True}
        for kind, dtypes in kinds.items()
        for column, dtype in dtypes.items()
    ]
    return json.dumps({"mlflow_colspec": columns})


def _name(key: str) -> str:
    """`key` with what MLflow does not take in a name replaced."""
    return posixpath.normpath(re.sub(r"[^/\w.\- ]", "_", key)).strip("/.")[:MAX_ENTITY_KEY_LENGTH]
