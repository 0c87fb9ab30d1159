"""The runs of executions and stages in MLflow: found by their tags, or made."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from pipeline.tracking.entries import clean_tags, milliseconds
from pipeline.tracking.events import Event
from pipeline.tracking.store import artifact_root, database

EXECUTION = "execution"
"""The tag of a parent run: the execution's key."""
LOG = "log"
"""The tag of a stage's run: <execution>/<stem of its log>."""
PAGE = 1000


def find_experiment(client: MlflowClient, name: str) -> str | None:
    """The id of an experiment; None if there is none yet."""
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else None


def make_experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment that is made if it is not there; several processes may do so at once."""
    found = find_experiment(client, name)
    if found is not None:
        return found
    file = database(client.tracking_uri)
    try:
        return str(client.create_experiment(name, artifact_root(file) if file else None))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        found = find_experiment(client, name)
        assert found is not None, name
        return found


def find_parent(client: MlflowClient, experiment: str, execution: str) -> Run | None:
    """The run of an execution, deleted or not."""
    return next(_search(client, experiment, f"tags.{EXECUTION} = '{execution}'"), None)


def all_parents(client: MlflowClient, experiment: str) -> dict[str, Run]:
    """The runs of all executions, by key."""
    return {run.data.tags[EXECUTION]: run for run in _search(client, experiment, f"tags.{EXECUTION} LIKE '%'")}


def find_children(client: MlflowClient, experiment: str, parent: str) -> dict[str, str]:
    """The ids of the runs of an execution's stages, by the stem of their log."""
    found = _search(client, experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'")
    return {run.data.tags[LOG].rpartition("/")[2]: run.info.run_id for run in found if LOG in run.data.tags}


def find_child(client: MlflowClient, experiment: str, execution: str, stem: str) -> str | None:
    """The id of the run of one log."""
    found = next(_search(client, experiment, f"tags.{LOG} = '{execution}/{stem}'"), None)
    return found.info.run_id if found else None


def make_parent(client: MlflowClient, experiment: str, start: Event) -> str:
    """A run for the execution that began with `start`."""
    tags = {
        EXECUTION: start["execution"],
        MLFLOW_RUN_NAME: start["execution_name"],
        "dvc.experiment": start["dvc_experiment"],
        "dvc.baseline": start["dvc_baseline"],
    }
    return _make(client, experiment, start, {key: value for key, value in tags.items() if value})


def make_child(client: MlflowClient, experiment: str, parent: str, stem: str, start: Event) -> str:
    """A run for the stage that began with `start`, below its execution's."""
    tags = {
        LOG: f"{start['execution']}/{stem}",
        MLFLOW_PARENT_RUN_ID: parent,
        MLFLOW_RUN_NAME: start["stage"],
        "stage": start["stage"],
    }
    return _make(client, experiment, start, tags | start["machine"])


def _make(client: MlflowClient, experiment: str, start: Event, tags: dict[str, str]) -> str:
    code = start["code"]
    if code:
        tags |= {MLFLOW_GIT_COMMIT: code["commit"], "git.dirty": str(code["dirty"]).lower()}
    run = client.create_run(experiment, start_time=milliseconds(start["time"]), tags=clean_tags(tags))
    return str(run.info.run_id)


def _search(client: MlflowClient, experiment: str, query: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment], query, ViewType.ALL, PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
