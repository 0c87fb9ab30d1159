"""Delivery while single requests fail: nothing twice, nothing lost, nothing left open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from pipeline.tracking.exporter import Exporter
from pipeline.tracking.logs import ExecutionLogs
from tests.pipeline.tracking.stages import TRAIN, Workplace


class Flaky:
    """A client whose `fails`-th request goes wrong: before MLflow has it, or after, with the answer lost."""

    def __init__(self, client: MlflowClient, fails: int, after: bool) -> None:
        self._client, self._fails, self._after = client, fails, after
        self.requests = 0

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._client, name)
        if not callable(attribute):
            return attribute

        def request(*values: Any, **named: Any) -> Any:
            self.requests += 1
            fails = self.requests == self._fails
            if fails and not self._after:
                raise ConnectionError("not sent")
            answer = attribute(*values, **named)
            if fails:
                raise ConnectionError("no answer")
            return answer

        return request


def copied(logs: ExecutionLogs, target: Path) -> ExecutionLogs:
    """The same execution under another key."""
    shutil.copytree(logs.folder, target)
    shutil.rmtree(target / "delivered", ignore_errors=True)
    for log in target.glob("*.jsonl"):
        log.write_text(log.read_text().replace(logs.folder.name, target.name))
    return ExecutionLogs(target)


@pytest.fixture
def logs(workplace: Workplace) -> ExecutionLogs:
    workplace.run(TRAIN, uri="http://127.0.0.1:9")  # nobody there
    workplace.wait_for_feeders(40)
    return workplace.executions[0]


@pytest.mark.parametrize("after", [False, True])
def test_any_one_request_may_fail(logs, workplace, tmp_path, after):
    uri = workplace.uri

    def deliver(name: str, fails: int) -> int:
        brought = copied(logs, tmp_path / name)
        exporter = Exporter(uri)
        exporter._client = client = Flaky(exporter._client, fails, after)
        try:
            exporter.deliver(brought)
        except ConnectionError:
            exporter.deliver(brought)
        return client.requests

    for number in range(1, deliver("whole", 0) + 1):
        deliver(f"failed-{number:03d}", number)
    runs = MlflowClient(uri).search_runs(["1"], run_view_type=ViewType.ACTIVE_ONLY, max_results=5000)
    metrics = [(run.data.tags["log"].split("/")[0], run.data.metrics["loss"]) for run in runs if "log" in run.data.tags]
    executions = sorted(path.name for path in tmp_path.iterdir() if (path / "execution.jsonl").exists())
    assert sorted(name for name, _ in metrics) == executions
    assert {loss for _, loss in metrics} == {1.0}
    assert sorted(run.data.tags["execution"] for run in runs if "execution" in run.data.tags) == executions
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_second_run_that_a_slow_answer_made_is_removed(logs, workplace):
    exporter = Exporter(workplace.uri)
    client = exporter._client
    experiment = client.create_experiment("mamba2", str(workplace.folder / "artifacts"))
    for _ in range(2):
        client.create_run(experiment, tags={"execution": logs.folder.name})
    exporter.deliver(logs)
    parents = [run for run in client.search_runs([experiment]) if "execution" in run.data.tags]
    assert len(parents) == 1
    assert "base/loss" in parents[0].data.metrics


def test_a_stage_that_was_deleted_stays_so_and_the_rest_goes_on(logs, workplace):
    Exporter(workplace.uri).deliver(logs)
    client = MlflowClient(workplace.uri)
    (child,) = [run for run in client.search_runs(["1"]) if "log" in run.data.tags]
    client.delete_run(child.info.run_id)
    shutil.rmtree(logs.folder / "delivered")
    Exporter(workplace.uri).deliver(logs)
    assert [run.data.tags.get("log") for run in client.search_runs(["1"])] == [None]


def test_a_deleted_experiment_is_named(logs, workplace):
    client = MlflowClient(workplace.uri)
    Exporter(workplace.uri)
    client.delete_experiment(client.create_experiment("mamba2", str(workplace.folder / "artifacts")))
    done = workplace.tracking("sync")
    assert done.returncode == 1
    assert "its experiment mamba2 is deleted in MLflow; restore it there" in done.stdout
