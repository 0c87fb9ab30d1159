"""sync: what was never delivered comes over, from here and from elsewhere; twice is once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from mlflow.tracking import MlflowClient

from tests.pipeline.tracking.servers import children, contents, free_port, history, parents
from tests.pipeline.tracking.stages import LOSSES, TRAIN, Workplace

NOWHERE = "sqlite:////proc/nowhere/mlflow.db"


def test_a_log_with_a_damaged_beginning_is_named_and_keeps_no_other_back(workplace):
    for _ in range(3):
        workplace.run(TRAIN, NOWHERE)
    workplace.wait_for_feeders()
    first, second, third = workplace.executions
    own, stage = first.own, second.stages()[0]
    own.write_bytes(b"\0" * 20 + own.read_bytes()[20:])
    stage.write_text("".join(stage.read_text().splitlines(keepends=True)[1:]))
    done = workplace.tracking("sync")
    assert done.returncode == 0, done.stderr
    for damaged in (own, stage):
        assert f"{damaged.relative_to(workplace.folder)}: its beginning is damaged" in done.stderr
    assert parents(workplace.uri).keys() == {second.folder.name, third.folder.name}
    assert history(workplace.uri, parents(workplace.uri)[third.folder.name], "base/loss") == LOSSES


def test_a_folder_from_a_machine_without_a_network_comes_over_once(workplace, tmp_path):
    workplace.run(TRAIN, NOWHERE)
    killed = 'import os\nwith track("finetune", params) as run:\n    run.log_metrics({"loss": 2.0})\n    os._exit(1)\n'
    workplace.start(killed, NOWHERE).communicate(timeout=60)
    workplace.wait_for_feeders()
    brought = tmp_path / "brought"
    shutil.move(workplace.folder / "work/events", brought)
    for log in brought.glob("*/*.jsonl"):
        _move_to_another_host(log)
    here = Workplace(tmp_path / "here")
    printed = here.sync(str(brought))
    assert printed.count("events delivered\n") == 2
    assert printed.splitlines()[-1].startswith("2 executions, ")
    statuses = sorted(parent.info.status for parent in parents(here.uri).values())
    assert statuses == ["FINISHED", "KILLED"]
    before = contents(here.uri)
    assert here.sync(str(brought)).count("already there") == 2
    for folder in brought.glob("*/delivered"):
        shutil.rmtree(folder)
    assert here.sync(str(brought)).count("events delivered\n") == 2  # all of it again, to no effect
    assert contents(here.uri) == before
    assert any(history(here.uri, parent, "base/loss") == LOSSES for parent in parents(here.uri).values())


def _move_to_another_host(log: Path) -> None:
    """As if it had been written elsewhere, an hour ago."""
    events = [json.loads(line) for line in log.read_text().splitlines()]
    for event in events:
        event["time"] -= 3600
        if event["kind"] == "start":
            event["process"]["host"] = "another"
    log.write_text("".join(json.dumps(event) + "\n" for event in events))


def test_a_store_that_has_lost_the_runs_gets_them_again_and_one_that_deleted_them_does_not(workplace):
    workplace.run(TRAIN)
    workplace.wait_for_feeders()
    before = contents(workplace.uri)
    (workplace.folder / "work/mlflow.db").unlink()
    assert "events delivered\n" in workplace.sync()
    uri = f"sqlite:///{workplace.folder}/./work/mlflow.db"  # another name: MLflow still has the lost file open here
    assert sorted(map(repr, _without_ids(before))) == sorted(map(repr, _without_ids(contents(uri))))
    (parent,) = parents(uri).values()
    MlflowClient(uri).delete_run(parent.info.run_id)
    assert "deleted in MLflow" in workplace.sync()
    (parent,) = parents(uri).values()
    assert parent.info.lifecycle_stage == "deleted"


def test_an_experiment_that_was_renamed_in_mlflow_keeps_its_runs(workplace):
    workplace.run(TRAIN)
    workplace.wait_for_feeders()
    (parent,) = parents(workplace.uri).values()
    client = MlflowClient(workplace.uri)
    client.rename_experiment(parent.info.experiment_id, "another name")
    before = contents(workplace.uri)
    assert "already there" in workplace.sync()
    (folder,) = workplace.folder.glob("work/events/*/delivered")
    (cursor,) = folder.iterdir()
    told = json.loads(cursor.read_text()) | {"events": 0, "logs": {}}
    cursor.write_text(json.dumps(told))
    assert "events delivered" in workplace.sync()  # all of it again, to no effect
    assert contents(workplace.uri) == before
    assert [found.name for found in client.search_experiments()] == ["another name", "Default"]


def _without_ids(held: dict) -> list:
    return [{**run, "tags": run["tags"] | {"mlflow.parentRunId": ""}} for run in held.values()]


def test_nothing_is_sent_where_nobody_answers(workplace):
    workplace.run(TRAIN)
    done = workplace.tracking("sync", uri=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_logs_is_a_mistake(workplace, tmp_path):
    done = workplace.tracking("sync", str(tmp_path))
    assert done.returncode == 1
    assert "no event logs here" in done.stderr


def test_four_processes_at_once_on_a_fresh_database(workplace):
    stages = [workplace.start(TRAIN) for _ in range(4)]
    for stage in stages:
        _, errors = stage.communicate(timeout=120)
        assert stage.returncode == 0, errors
    workplace.wait_for_feeders(60)
    found = parents(workplace.uri)
    assert len(found) == 4
    for parent in found.values():
        assert parent.info.status == "FINISHED"
        assert history(workplace.uri, children(workplace.uri, parent)["base"], "loss") == LOSSES
