"""A real MLflow server that is down, dies, hangs or answers nonsense: a stage never notices, and nothing is lost."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.pipeline.tracking.servers import (
    RealServer,
    broken_server,
    children,
    contents,
    free_port,
    hanging_server,
    history,
    parents,
    wait_until,
)
from tests.pipeline.tracking.stages import LOSSES, TRAIN, Workplace


def assert_delivered_once(workplace: Workplace, uri: str) -> None:
    """The one execution of TRAIN is there, whole; and a second sync changes nothing in the store."""
    (logs,) = workplace.executions
    parent = parents(uri)[logs.folder.name]
    child = children(uri, parent)["base"]
    assert history(uri, child, "loss") == LOSSES
    assert history(uri, parent, "base/loss") == LOSSES
    assert {parent.info.status, child.info.status} == {"FINISHED"}
    before = contents(uri)
    assert set(before[child.info.run_id]["artifacts"]) == {"samples.txt"}
    assert "already there" in workplace.sync(uri=uri)
    assert contents(uri) == before


def test_a_server_that_is_up_has_everything_when_the_stage_ends(server, workplace):
    errors = workplace.run(TRAIN, server.uri)
    assert errors == ""
    workplace.wait_for_feeders()
    assert_delivered_once(workplace, server.uri)


def test_a_server_that_is_down_at_the_start(server, workplace):
    errors = workplace.run(TRAIN, f"http://127.0.0.1:{free_port()}")
    assert errors.count("\n") == 1
    assert "python -m pipeline.tracking sync" in errors
    assert "base.jsonl" in errors
    workplace.wait_for_feeders()
    assert "delivered" in workplace.sync(uri=server.uri)
    assert_delivered_once(workplace, server.uri)


@pytest.mark.parametrize("outage", [hanging_server, broken_server])
def test_a_server_that_hangs_or_breaks(server, workplace, outage):
    with outage() as uri:
        errors = workplace.run(TRAIN, uri)
        assert "python -m pipeline.tracking sync" in errors
        workplace.wait_for_feeders()
        refused = workplace.tracking("sync", uri=uri)
        assert refused.returncode == 1
        assert refused.stderr.startswith("tracking: error: MLflow at http://127.0.0.1")
    workplace.sync(uri=server.uri)
    assert_delivered_once(workplace, server.uri)


def test_a_server_that_is_killed_mid_run_and_comes_back(workplace, tmp_path):
    server = RealServer(tmp_path).start()
    half = """
with track("base", params) as run:
    for step in range(20):
        run.log_metrics({"loss": 40.0 - step}, tokens=step * 512)
    input()  # the server is killed here
    for step in range(20, 40):
        run.log_metrics({"loss": 40.0 - step}, tokens=step * 512)
    Path("samples.txt").write_text("hello")
    run.log_artifact(Path("samples.txt"))
"""
    stage = workplace.start(half, server.uri)
    try:
        wait_until(lambda: any("base/loss" in run.data.metrics for run in parents(server.uri).values()), 60)
        server.kill()
        _, errors = stage.communicate("\n", timeout=60)
        assert stage.returncode == 0, errors
        assert "python -m pipeline.tracking sync" in errors
        workplace.wait_for_feeders()
        server.start()
        workplace.sync(uri=server.uri)
        assert_delivered_once(workplace, server.uri)
    finally:
        server.kill()


def test_a_stage_that_is_killed_leaves_no_feeder_and_its_run_is_closed(server, workplace):
    code = 'with track("base", params) as run:\n    run.log_metrics({"loss": 1.0}, tokens=7)\n    input()\n'
    stage = workplace.start(code, server.uri)
    wait_until(lambda: workplace.executions and workplace.executions[0].stages(), 60)
    (logs,) = workplace.executions
    wait_until(lambda: logs.folder.name in parents(server.uri), 60)
    parent = parents(server.uri)[logs.folder.name]
    assert parent.info.status == "RUNNING"
    (feeder,) = [p for p in psutil.process_iter(["cmdline"]) if str(logs.folder) in (p.info["cmdline"] or [])]
    feeder.kill()  # both at once, as when the machine goes down
    os.kill(stage.pid, signal.SIGKILL)
    stage.communicate(timeout=30)
    workplace.sync(uri=server.uri)
    parent = parents(server.uri)[logs.folder.name]
    assert {run.info.status for run in (parent, *children(server.uri, parent).values())} == {"KILLED"}
    assert parent.info.end_time is not None


def test_a_feeder_ends_when_its_stage_is_killed(server, workplace):
    stage = workplace.start('with track("base", params) as run:\n    input()\n', server.uri)
    wait_until(lambda: workplace.executions and workplace.executions[0].stages(), 60)
    folder = str(workplace.executions[0].folder)
    wait_until(lambda: any(folder in (p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])), 60)
    os.kill(stage.pid, signal.SIGKILL)
    stage.communicate(timeout=30)
    workplace.wait_for_feeders()
    (logs,) = workplace.executions
    assert parents(server.uri)[logs.folder.name].info.status == "KILLED"
