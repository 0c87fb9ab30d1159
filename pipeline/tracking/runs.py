"""The runs of executions and stages in MLflow: found by their tags, or made."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

from pipeline.tracking.entries import clean_tags, milliseconds
from pipeline.tracking.events import Event
from pipeline.tracking.store import artifact_root, database, is_server

EXECUTION = "execution"
"""The tag of a parent run: the execution's key."""
LOG = "log"
"""The tag of a stage's run: <execution>/<stem of its log>."""
EVENTS = "log.events"
"""The tag of a parent run that says how many events MLflow has."""
DELETED = "deleted"
"""In place of the id of a run that somebody has deleted in MLflow: it stays so."""
PAGE = 1000


def find_experiment(client: MlflowClient, name: str) -> str | None:
    """The id of an experiment; None if there is none yet."""
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found else None


def make_experiment(client: MlflowClient, name: str) -> str:
    """The id of an experiment that is made if it is not there; several processes may do so at once."""
    known = client.get_experiment_by_name(name)
    if known is not None:
        if known.lifecycle_stage == LifecycleStage.DELETED:
            raise ValueError(f"its experiment {name} is deleted in MLflow; restore it there")
        return str(known.experiment_id)
    uri = client.tracking_uri
    try:
        return str(client.create_experiment(name, None if is_server(uri) else artifact_root(database(uri))))
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        found = find_experiment(client, name)
        assert found is not None, name
        return found


def find_parents(client: MlflowClient, experiment: str, execution: str) -> list[Run]:
    """The run of an execution, deleted or not; several where MLflow was slow to make it. The one in use is first."""
    return sorted(_search(client, experiment, f"tags.{EXECUTION} = '{execution}'"), key=_unused)


def all_parents(client: MlflowClient, experiment: str) -> dict[str, list[Run]]:
    """The same of all executions, by key."""
    found: dict[str, list[Run]] = {}
    for run in sorted(_search(client, experiment, f"tags.{EXECUTION} LIKE '%'"), key=_unused):
        found.setdefault(run.data.tags[EXECUTION], []).append(run)
    return found


def _unused(run: Run) -> tuple[bool, int]:
    return EVENTS not in run.data.tags, run.info.start_time


def find_children(client: MlflowClient, experiment: str, parent: str) -> dict[str, str]:
    """The ids of the runs of an execution's stages, by the stem of their log."""
    found = _search(client, experiment, f"tags.`{MLFLOW_PARENT_RUN_ID}` = '{parent}'")
    return {run.data.tags[LOG].rpartition("/")[2]: _id(run) for run in found if LOG in run.data.tags}


def find_child(client: MlflowClient, experiment: str, execution: str, stem: str) -> str | None:
    """The id of the run of one log, DELETED where somebody has deleted it."""
    found = next(_search(client, experiment, f"tags.{LOG} = '{execution}/{stem}'"), None)
    return _id(found) if found else None


def _id(run: Run) -> str:
    return DELETED if run.info.lifecycle_stage == LifecycleStage.DELETED else str(run.info.run_id)


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
