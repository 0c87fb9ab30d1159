"""Ray: a real cluster of two nodes on this machine, from which a process and a node are taken; and Ray started here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.shards import Kept, Local, run_shards
from pipeline.shards.executors.ray import Ray
from pipeline.work import WorkFolder
from tests.pipeline.shards import jobs
from tests.pipeline.shards.jobs import numbers, wait_until
from tests.pipeline.shards.stages import run_stages, write_inputs

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

ROOT = Path(__file__).parents[3]
SMALL = {"num_cpus": 1, "object_store_memory": 100 * 10**6}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head that does no work, and a node."""
    cluster = Cluster(head_node_args={**SMALL, "num_cpus": 0, "include_dashboard": False}, initialize_head=True)
    cluster.add_node(**SMALL)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_processes_and_nodes_may_die(cluster: Any, tmp_path: Path) -> None:
    doomed = cluster.add_node(**SMALL)
    stream = Ray(address=cluster.address).run(jobs.die_once_at_two, numbers(12, tmp_path))
    found = [next(stream)]
    cluster.remove_node(doomed, allow_graceful=False)
    found += stream
    assert sorted(found) == [(value, value**2) for value in range(12)]
    assert jobs.calls(tmp_path)[2] >= 2


def test_tasks_see_this_directory_and_give_polars_one_thread(cluster: Any) -> None:
    results = [result for _, result in Ray(address=cluster.address).run(jobs.where, numbers(2))]
    assert {(threads, place) for _, threads, place in results} == {("1", os.getcwd())}


def test_the_first_failure_in_order_is_raised_and_names_its_shard(cluster: Any) -> None:
    with pytest.raises(ValueError, match="3 is too much") as failure:
        list(Ray(address=cluster.address).run(jobs.fail_from_three, numbers(40)))
    assert failure.value.__notes__ == ["in shard number 3"]


def test_a_process_that_always_dies_is_an_error(cluster: Any) -> None:
    with pytest.raises(RuntimeError, match=r"lost the process.*ingest\.shard_mb") as failure:
        list(Ray(address=cluster.address).run(jobs.die_always, numbers(1)))
    assert failure.value.__notes__ == ["in shard number 0"]


def test_progress_counts_the_tasks_that_are_done(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.progress.SECONDS_BETWEEN_LINES", -1.0)  # a line for each
    work = WorkFolder(tmp_path)
    run_shards(jobs.square, numbers(5), title="squares", executor=Ray(address=cluster.address), kept=Kept.of(work))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("squares")]
    assert [line.split(",")[0] for line in lines] == [f"squares: {count}/5 shards" for count in range(1, 5)]


def test_the_stages_make_the_same_bytes(cluster: Any, tmp_path: Path) -> None:
    there = run_stages(write_inputs(tmp_path / "ray"), Ray(address=cluster.address))
    assert there == run_stages(write_inputs(tmp_path / "here"), Local(1))


def test_the_stages_make_the_same_bytes_though_processes_and_nodes_are_lost(cluster: Any, tmp_path: Path) -> None:
    """A node in the midst of preprocess and one of tokenize; in every other step that Ray works on, a process."""
    doomed = {step: cluster.add_node(**SMALL) for step in ("annotate", "encode_shard")}
    struck = tmp_path / "struck"
    struck.mkdir()

    def take_away() -> None:
        for step, node in doomed.items():
            wait_until((struck / step).exists, f"nothing was struck in {step}")
            cluster.remove_node(node, allow_graceful=False)

    nodes = {step: node.node_id for step, node in doomed.items()}
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(take_away)
        executor = jobs.Striking(Ray(address=cluster.address), struck, nodes)
        there = run_stages(write_inputs(tmp_path / "ray"), executor)
        taken.result()
    assert {step.name for step in struck.iterdir()} >= {*doomed, "match", "write_shard"}
    assert there == run_stages(write_inputs(tmp_path / "here"), Local(1))


def test_an_address_where_no_cluster_is_is_an_error() -> None:
    code = (
        "from pipeline.shards.executors.ray import Ray\nfrom tests.pipeline.shards.jobs import numbers, square\n"
        "list(Ray(address='127.0.0.1:1').run(square, numbers(1)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ValueError: launch.ray_address is 127.0.0.1:1: no Ray cluster answers there" in done.stderr


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_a_ray_that_is_started_here_ends_with_its_caller(tmp_path: Path, signal_number: int) -> None:
    code = (
        "import sys\nfrom pipeline.process import Interrupted, stop_on_signals\n"
        "from pipeline.shards.executors.ray import Ray\nfrom tests.pipeline.shards.jobs import numbers, sleep\n"
        "stop_on_signals()\n"
        "try: list(Ray(1).run(sleep, numbers(2, sys.argv[1])))\n"
        "except Interrupted as stop: sys.exit(stop.exit_status)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    caller = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    wait_until(lambda: len(jobs.calls(tmp_path)) == 1, "no task started", seconds=120)
    processes = jobs.all_below(caller.pid)
    if signal_number == signal.SIGKILL:  # Ray's agents look for their dead for a minute before they end
        processes = [process for process in processes if "Agent" not in process.name()]
    assert len(processes) >= 3
    caller.send_signal(signal_number)
    assert caller.wait(timeout=60) == (143 if signal_number == signal.SIGTERM else -signal.SIGKILL)
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert not alive
