"""What a stage logs, and what of it is in a real MLflow database when the stage has ended."""

from __future__ import annotations

import json
import math

import mlflow.data
import pytest
from mlflow.tracking import MlflowClient

from pipeline.params import flatten, load_params
from pipeline.tracking.events import read_events
from tests.pipeline.tracking.servers import children, contents, history, parents
from tests.pipeline.tracking.stages import LOSSES, ROOT, TRAIN, Workplace

TWO_STAGES = """
with track("base", params) as run:
    for tokens in (10, 20):
        run.log_metrics({"loss": 30.0 - tokens, "odd %": float("nan"), "big": float("inf")}, tokens=tokens)
    run.log_dataset("mine", Path("dvc.yaml"), "test")
with track("finetune", params) as run:
    run.log_metrics({"loss": 5.0}, tokens=7)
    run.log_tags({"data/tokens": "abc"})
    Path("plots").mkdir()
    Path("plots/loss.csv").write_text("step,loss")
    run.log_artifact(Path("plots"))
    Path("plots/loss.csv").unlink()  # a later run replaces it
with track("finetune", params) as run:
    run.log_metrics({"loss": 4.0}, tokens=9)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Workplace:
    """Stages of one execution, one of them run twice."""
    workplace = Workplace(tmp_path_factory.mktemp("runs") / "place")
    workplace.run(TWO_STAGES)
    workplace.wait_for_feeders()
    return workplace


def test_stages_of_one_execution_share_a_parent_that_shows_what_they_came_to(done):
    (parent,) = parents(done.uri).values()
    found = children(done.uri, parent)
    assert sorted(found) == ["base", "finetune", "finetune-2"]
    assert {run.info.run_name for run in found.values()} == {"base", "finetune"}
    assert {run.info.status for run in (parent, *found.values())} == {"FINISHED"}
    metrics = parent.data.metrics
    assert metrics["base/loss"] == 10.0
    assert metrics["finetune/loss"] == 4.0
    assert not any("system/" in name for name in metrics)
    params = {key: str(value) for key, value in flatten(load_params(ROOT / "params.yaml")).items()}
    assert all(run.data.params == params for run in (parent, *found.values()))


def test_metrics_keep_their_steps_times_and_odd_values(done):
    (parent,) = parents(done.uri).values()
    base = children(done.uri, parent)["base"]
    assert history(done.uri, base, "loss") == [(10, 20.0), (20, 10.0)]
    assert [step for step, value in history(done.uri, base, "odd _") if math.isnan(value)] == [10, 20]
    assert all(value > 1e300 for _, value in history(done.uri, base, "big"))
    (log,) = done.executions[0].folder.glob("base.jsonl")
    times = [int(event["time"] * 1000) for event in read_events(log) if event["kind"] == "metrics"]
    points = MlflowClient(done.uri).get_metric_history(base.info.run_id, "loss")
    assert sorted(point.timestamp for point in points) == times


def test_artifacts_are_those_of_the_moment_and_the_config_is_the_executions(done):
    (parent,) = parents(done.uri).values()
    held = contents(done.uri)
    assert set(held[parent.info.run_id]["artifacts"]) == {"params.yaml"}
    finetune = children(done.uri, parent)["finetune"]
    assert set(held[finetune.info.run_id]["artifacts"]) == {"plots/loss.csv"}
    assert finetune.data.tags["data/tokens"] == "abc"


def test_what_a_stage_reads_under_data_is_a_dataset_input(done):
    (parent,) = parents(done.uri).values()
    inputs = {entry.dataset.name: entry for entry in children(done.uri, parent)["base"].inputs.dataset_inputs}
    assert inputs.keys() == {"data/tokens", "mine"}
    tokens = inputs["data/tokens"].dataset
    assert json.loads(tokens.profile) == {"rows": 3}
    assert json.loads(tokens.schema)["mlflow_colspec"][0]["name"] == "documents.id"
    assert mlflow.data.get_source(tokens).uri == "data/tokens"
    assert {tag.value for tag in inputs["data/tokens"].tags} == {"base"}


def test_the_machine_is_watched_under_the_names_of_mlflow(done):
    (parent,) = parents(done.uri).values()
    base = children(done.uri, parent)["base"]
    watched = {name for name in base.data.metrics if name.startswith("system/")}
    assert watched >= {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
        "system/process_memory_megabytes",
        "system/disk_available_megabytes",
    }
    assert base.data.metrics["system/process_memory_megabytes"] > 5
    assert base.data.tags["version.torch"]


@pytest.mark.parametrize(
    ("end", "status", "error"),
    [("raise ValueError('bad data')", "FAILED", "ValueError: bad data"), ("raise KeyboardInterrupt", "KILLED", None)],
)
def test_a_stage_that_does_not_finish_is_told_so(workplace, end, status, error):
    stage = workplace.start(f'with track("base", params) as run:\n    {end}\n')
    stage.communicate(timeout=60)
    assert stage.returncode != 0
    workplace.wait_for_feeders()
    (parent,) = parents(workplace.uri).values()
    child = children(workplace.uri, parent)["base"]
    assert (parent.info.status, child.info.status) == (status, status)
    assert child.data.tags.get("error") == error


def test_a_replay_shows_everything_again(workplace):
    again = """
log = run.log_path
copy = Path("copy.jsonl")
copy.write_bytes(log.read_bytes())
with track("finetune", params) as run:
    run.replay(copy)
"""
    workplace.run(TRAIN + again)
    workplace.wait_for_feeders()
    (parent,) = parents(workplace.uri).values()
    found = children(workplace.uri, parent)
    assert history(workplace.uri, found["finetune"], "loss") == LOSSES
    held = contents(workplace.uri)
    first, second = (held[found[name].info.run_id] for name in ("base", "finetune"))
    assert first["artifacts"] == second["artifacts"]
    assert second["tags"]["artifacts/base/model"] == "abc"


def test_an_execution_that_is_opened_holds_the_stages_of_other_processes(workplace):
    runner = """
import os, subprocess
execution = open_execution("repro")
stage = '''
import sys
from pipeline.params import load_params
from pipeline.tracking import track
with track(sys.argv[1], load_params()) as run:
    run.log_metrics({"x": 1.0})
'''
for name in ("ingest", "preprocess"):
    subprocess.run([sys.executable, "-c", stage, name], env=os.environ | execution.environment(), check=True)
close_execution(execution, "FINISHED")
"""
    assert workplace.run(runner) == ""
    (parent,) = parents(workplace.uri).values()  # at once: closing waits for it
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name.startswith("repro 2")
    assert sorted(children(workplace.uri, parent)) == ["ingest", "preprocess"]


def test_another_rank_does_nothing_and_touches_nothing(workplace):
    code = TRAIN + "run.replay(run.log_path)\nrun.log_dataset('a', Path('dvc.yaml'), 'b')\n"
    workplace.run(code, RANK="1")
    assert not (workplace.folder / "work").exists()
