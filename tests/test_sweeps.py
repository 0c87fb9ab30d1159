"""Sweeps: queued experiments share what they have in common, and each is a run of its own in MLflow."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.project import SMALL, STAGES, Project, write_jsonl

RATES = ["0.002", "0.004"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Project:
    """A project that ran once, then two queued experiments on the learning rate."""
    project = Project(tmp_path_factory.mktemp("swept") / "clone")
    data = project.path.parent / "mine.jsonl"
    write_jsonl(data)
    project.set_all(SMALL | {"ingest.source": str(data)})  # absolute: an experiment runs in a copy of the repository
    assert project.repro() == STAGES
    project.commit("params")
    queued = project.run("dvc", "exp", "run", "--queue", "-S", f"finetune.lr={','.join(RATES)}")
    assert queued.returncode == 0, queued.stderr
    started = project.run("dvc", "queue", "start")
    assert started.returncode == 0, started.stderr
    deadline = time.monotonic() + 600
    while True:
        status = project.run("dvc", "queue", "status").stdout  # takes seconds of a core that the experiments could use
        if status.count("Success") == len(RATES) and "idle" in status:
            return project
        assert "Failed" not in status, status
        assert time.monotonic() < deadline, status
        time.sleep(5)


def parents(project: Project) -> list[Run]:
    client = MlflowClient(f"sqlite:///{project.path}/work/mlflow.db")
    experiment = client.get_experiment_by_name("mamba2")
    return [run for run in client.search_runs([experiment.experiment_id]) if "execution" in run.data.tags]


def children(project: Project, parent: Run) -> dict[str, Run]:
    client = MlflowClient(f"sqlite:///{project.path}/work/mlflow.db")
    experiment = client.get_experiment_by_name("mamba2")
    found = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    return {run.data.tags["stage"]: run for run in found}


def test_each_queued_experiment_is_a_run_under_its_name(swept):
    names = swept.run("dvc", "exp", "list", "--name-only").stdout.split()
    assert len(names) == len(RATES)
    by_name = {run.info.run_name: run for run in parents(swept)}
    assert by_name.keys() > set(names)
    assert len(by_name) == 1 + len(names)
    rates = {float(by_name[name].data.params["finetune.lr"]) for name in names}
    assert rates == {float(rate) for rate in RATES}
    assert {by_name[name].info.status for name in names} == {"FINISHED"}


def test_shared_stages_ran_once_and_are_linked(swept):
    first, *sweep = sorted(parents(swept), key=lambda run: run.info.start_time)
    made = children(swept, first)
    assert made.keys() == set(STAGES)
    for run in sweep:
        assert children(swept, run).keys() == {"finetune", "evaluate", "export"}
        for stage in ("ingest", "preprocess", "tokenize", "base"):
            assert run.data.tags[f"cached/{stage}"] == made[stage].info.run_id
        assert run.data.metrics["base/validation_loss"] == first.data.metrics["base/validation_loss"]


def test_results_compare_in_mlflow_and_in_dvc(swept):
    runs = parents(swept)
    shared = set.intersection(*(set(run.data.metrics) for run in runs))
    assert {"evaluate/finetuned/response_loss", "finetune/best/validation_loss", "base/validation_loss"} <= shared
    losses = [run.data.metrics["evaluate/finetuned/response_loss"] for run in runs]
    assert len(set(losses)) == len(losses)
    shown = swept.run("dvc", "exp", "show", "--csv")
    assert shown.returncode == 0, shown.stderr
    for rate in RATES:
        assert any(rate in line for line in shown.stdout.splitlines())


def test_work_and_the_event_log_are_in_the_repository_itself(swept):
    assert len(list((swept.path / "work/events").iterdir())) >= 1 + len(RATES)
    assert len(list((swept.path / "work/finetune").iterdir())) == 1 + len(RATES)


def test_a_temporary_experiment_leaves_the_workspace_clean(swept):
    before = (
        swept.git("status", "--porcelain"),
        swept.hashes("artifacts", "data"),
        (swept.path / "dvc.lock").read_bytes(),
    )
    done = swept.run("dvc", "exp", "run", "--temp", "--name", "night", "-S", "finetune.lr=0.003")
    assert done.returncode == 0, done.stderr
    after = (
        swept.git("status", "--porcelain"),
        swept.hashes("artifacts", "data"),
        (swept.path / "dvc.lock").read_bytes(),
    )
    assert after == before
    assert "night" in {run.info.run_name for run in parents(swept)}
    assert not list(Path(swept.path / ".dvc/tmp/exps").glob("tmp*"))
