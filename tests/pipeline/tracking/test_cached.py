"""A stage that DVC takes from its cache is linked to the run that made it; with the real `dvc`, two small stages."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline.tracking.servers import children, parents
from tests.pipeline.tracking.stages import Workplace

STAGE = """
import sys
from pathlib import Path
from pipeline.params import load_params
from pipeline.tracking import track
name, source, target = sys.argv[1:]
params = load_params()
with track(name, params) as run:
    text = Path(source).read_text()
    Path(target).write_text(text + (f"{params.finetune.lr}" if name == "finetune" else ""))
    Path(f"{name}.json").write_text(f'{{"speed": {id(run)}}}')
    run.log_metrics({"size": len(text)}, tokens=3)
    if "fail" in text:
        raise ValueError("asked to fail")
"""


@pytest.fixture
def project(workplace) -> Workplace:
    """ingest: source.txt -> a.txt; finetune: a.txt and finetune.lr -> b.txt."""
    (workplace.folder / "stage.py").write_text(STAGE)
    (workplace.folder / "source.txt").write_text("hello")
    stages = {}
    for name, source, target in (("ingest", "source.txt", "a.txt"), ("finetune", "a.txt", "b.txt")):
        stages[name] = {
            "cmd": f"python stage.py {name} {source} {target}",
            "deps": [source],
            "outs": [target],
            "metrics": [{f"{name}.json": {"cache": False}}],
        }
    stages["finetune"]["params"] = ["finetune"]
    (workplace.folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (workplace.folder / ".gitignore").write_text("/work/\n")
    run(workplace, "git", "init", "--quiet")
    run(workplace, "dvc", "init", "--quiet")
    commit(workplace)
    return workplace


def run(workplace: Workplace, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=workplace.folder, env=workplace.environment(PATH=path), capture_output=True, text=True, timeout=120
    )
    return done.stdout + done.stderr


def commit(workplace: Workplace) -> None:
    run(workplace, "git", "add", "--all")
    run(workplace, "git", "-c", "user.name=t", "-c", "user.email=t@example.invalid", "commit", "-qm", "tree")


def repro(workplace: Workplace, *arguments: str) -> str:
    printed = run(workplace, "dvc", *(arguments or ("repro",)))
    workplace.wait_for_feeders()
    return printed


def set_param(workplace: Workplace, section: str, name: str, value: object) -> None:
    file = workplace.folder / "params.yaml"
    params = yaml.safe_load(file.read_text())
    params[section][name] = value
    file.write_text(yaml.safe_dump(params))


def test_what_was_not_run_is_linked_to_the_run_that_made_it(project):
    repro(project)
    set_param(project, "finetune", "lr", 0.5)
    repro(project)
    first, second = (parents(project.uri)[logs.folder.name] for logs in project.executions)
    made = children(project.uri, first)
    assert sorted(made) == ["finetune", "ingest"]
    assert not [tag for tag in first.data.tags if tag.startswith("cached/")]
    assert sorted(children(project.uri, second)) == ["finetune"]
    assert second.data.tags["cached/ingest"] == made["ingest"].info.run_id
    assert second.data.tags["cached/ingest/from"] == first.info.run_name
    assert second.data.metrics == {"ingest/size": 5.0, "finetune/size": 5.0}
    assert "cached/finetune" not in second.data.tags
    assert len(second.data.tags["dvc.lock"]) == 64
    assert second.data.tags["dvc.lock"] != first.data.tags["dvc.lock"]
    assert made["ingest"].data.tags["dvc.stage"]


def test_experiments_in_temporary_folders_have_runs_of_their_name_and_links(project):
    repro(project)
    commit(project)
    for name, lr in (("warm", "0.25"), ("hot", "0.75")):
        printed = repro(project, "exp", "run", "--temp", "--name", name, "--set-param", f"finetune.lr={lr}")
        assert f"Ran experiment(s): {name}" in printed
    runs = {parent.info.run_name: parent for parent in parents(project.uri).values()}
    assert {"warm", "hot"} <= runs.keys()
    for name, lr in (("warm", "0.25"), ("hot", "0.75")):
        assert runs[name].data.params["finetune.lr"] == lr
        assert runs[name].data.metrics == {"ingest/size": 5.0, "finetune/size": 5.0}
        assert sorted(children(project.uri, runs[name])) == ["finetune"]
    assert not (project.folder / "b.txt").read_text().endswith("0.75")


def test_sync_links_what_an_outage_left_unlinked_though_the_folders_are_gone(project):
    set_param(project, "tracking", "uri", "sqlite:////proc/nowhere/mlflow.db")
    commit(project)
    repro(project)
    repro(project, "exp", "run", "--temp", "--name", "warm", "--set-param", "finetune.lr=0.25")
    project.sync(uri=project.uri)
    runs = {parent.info.run_name: parent for parent in parents(project.uri).values()}
    assert runs["warm"].data.tags["cached/ingest"]
    assert runs["warm"].data.metrics == {"ingest/size": 5.0, "finetune/size": 5.0}
    assert "0 events delivered" in project.sync(uri=project.uri)


def test_sync_reads_dvc_lock_where_the_feeder_was_killed(project):
    repro(project)
    set_param(project, "finetune", "lr", 0.5)
    repro(project)
    last = project.executions[-1]
    events = last.own.read_text().splitlines(keepends=True)
    last.own.write_text("".join(line for line in events if '"kind": "lock"' not in line))
    lock = project.folder / "dvc.lock"
    other = f"sqlite:///{project.folder}/other.db"
    project.sync(uri=other)
    made = parents(other)[last.folder.name]
    assert made.data.metrics == {"ingest/size": 5.0, "finetune/size": 5.0}
    lock.write_text(lock.read_text().replace("md5: ", "md5: 0"))  # as after a checkout of another commit
    assert "0 events delivered" in project.sync(uri=other)
    assert parents(other)[last.folder.name].data.tags == made.data.tags


def test_a_checkout_after_the_end_changes_nothing_of_a_run(project):
    repro(project)
    before = parents(project.uri)
    lock = project.folder / "dvc.lock"
    lock.write_text(lock.read_text().replace("md5: ", "md5: 0"))
    assert "0 events delivered" in project.sync(uri=project.uri)
    assert {key: run.data.tags for key, run in parents(project.uri).items()} == {
        key: run.data.tags for key, run in before.items()
    }


def test_after_a_failure_nothing_that_was_not_reached_is_linked(project):
    repro(project)
    (project.folder / "source.txt").write_text("fail")
    repro(project)
    last = parents(project.uri)[project.executions[-1].folder.name]
    assert last.info.status == "FAILED"
    assert not [tag for tag in last.data.tags if tag.startswith("cached/")]
    assert last.data.metrics == {"ingest/size": 4.0}
