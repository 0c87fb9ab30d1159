"""Jobs run in order, failures name their shard, and no worker outlives its caller."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from pipeline.shards import Local, run_shards


@dataclass(frozen=True)
class Number:
    value: int

    @property
    def name(self) -> str:
        return f"number {self.value}"


def square(job: Number) -> int:
    time.sleep(0.02 if job.value == 0 else 0)  # the first job ends last
    return job.value**2


def process_and_threads(job: Number) -> tuple[int, str | None]:
    return os.getpid(), os.environ.get("POLARS_MAX_THREADS")


def fail_from_three(job: Number) -> int:
    if job.value >= 3:
        raise ValueError(f"{job.value} is too much")
    return job.value


def die(job: Number) -> None:
    os._exit(9)


def sleep(job: Number) -> None:
    time.sleep(60)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_jobs(workers: int) -> None:
    jobs = [Number(value) for value in range(7)]
    assert run_shards(square, jobs, title="squares", executor=Local(workers)) == [value**2 for value in range(7)]
    assert run_shards(square, [], title="squares", executor=Local(workers)) == []


def test_workers_are_other_processes_with_one_polars_thread() -> None:
    results = run_shards(process_and_threads, [Number(0), Number(1)], title="pids", executor=Local(2))
    assert os.getpid() not in {pid for pid, _ in results}
    assert {threads for _, threads in results} == {"1"}
    ((pid, _),) = run_shards(process_and_threads, [Number(0)], title="pids", executor=Local(2))
    assert pid == os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_failure_in_order_is_raised_and_names_its_shard(workers: int) -> None:
    with pytest.raises(ValueError, match="3 is too much") as failure:
        run_shards(fail_from_three, [Number(value) for value in range(6)], title="fails", executor=Local(workers))
    assert failure.value.__notes__ == ["in shard number 3"]


def test_a_dead_worker_is_an_error_and_no_hang() -> None:
    with pytest.raises(RuntimeError, match=r"worker process died.*launch\.workers"):
        run_shards(die, [Number(0), Number(1)], title="dies", executor=Local(2))


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_caller(signal_number: int) -> None:
    code = (
        "from tests.pipeline.shards.test_executors import *\n"
        "if __name__ == '__main__': run_shards(sleep, [Number(0), Number(1)], title='sleeps', executor=Local(2))\n"
    )
    root = Path(__file__).parents[3]
    caller = subprocess.Popen([sys.executable, "-c", code], cwd=root, stderr=subprocess.DEVNULL, start_new_session=True)
    workers = _wait_for_workers(caller.pid)
    caller.send_signal(signal_number)
    caller.wait(timeout=20)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive


def _wait_for_workers(pid: int) -> list[psutil.Process]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        spawned = [p for p in psutil.Process(pid).children() if "spawn_main" in " ".join(p.cmdline())]
        if len(spawned) == 2 and all(p.num_threads() > 1 for p in spawned):  # the initializer has run
            return spawned
        time.sleep(0.05)
    raise AssertionError("no workers started")
