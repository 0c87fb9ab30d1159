"""The event log, and what of it arrives in a real MLflow database."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from pipeline.params import flatten, load_params
from pipeline.tracking import track
from pipeline.tracking.events import EventLog, read_events

ROOT = Path(__file__).parents[3]


@pytest.fixture
def params(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    params = load_params()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return params


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    log = EventLog(tmp_path / "log.jsonl")
    log.append("metrics", values={"loss": 1.0}, tokens=3)
    log.close()
    with log.path.open("a") as file:
        file.write('{"kind": "met')
    assert [event["kind"] for event in read_events(log.path)] == ["metrics"]


def test_stages_of_one_execution_share_a_parent_run(params, tmp_path):
    (tmp_path / "samples.txt").write_text("hello")
    with track("base", params) as run:
        for tokens in (10, 20):
            run.log_metrics({"loss": 30.0 - tokens}, tokens=tokens)
    with track("finetune", params) as run:
        run.log_metrics({"loss": 5.0}, tokens=7)
        run.log_tags({"data/tokens": "abc"})
        run.log_artifact(tmp_path / "samples.txt")

    client = MlflowClient(f"sqlite:///{tmp_path}/work/mlflow.db")
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    runs = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    parents = [r for r in runs.values() if "execution" in r.data.tags]
    assert len(parents) == 1
    assert len(runs) == 3
    for stage in ("base", "finetune"):
        child = runs[stage]
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.params == {key: str(value) for key, value in flatten(params).items()}
        assert child.info.status == "FINISHED"
    history = client.get_metric_history(runs["base"].info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(10, 20.0), (20, 10.0)]
    assert runs["finetune"].data.tags["data/tokens"] == "abc"
    assert [file.path for file in client.list_artifacts(runs["finetune"].info.run_id)] == ["samples.txt"]
    assert parents[0].data.metrics == {"base/loss": 10.0, "finetune/loss": 5.0}


def test_a_stage_that_fails_is_told_so(params, tmp_path):
    with pytest.raises(ValueError, match="bad data"), track("base", params):
        raise ValueError("bad data")
    client = MlflowClient(f"sqlite:///{tmp_path}/work/mlflow.db")
    experiment = client.get_experiment_by_name(params.tracking.experiment)
    assert {r.info.status for r in client.search_runs([experiment.experiment_id])} == {"FAILED"}


def test_an_outage_of_mlflow_fails_nothing_and_loses_nothing(params, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with track("base", params) as run:
        run.log_metrics({"loss": 1.0}, tokens=1)
    (log,) = (tmp_path / "work/events").rglob("*.jsonl")
    assert [event["kind"] for event in read_events(log)] == ["start", "metrics", "end"]
    assert "MLflow did not take this run" in capsys.readouterr().err
