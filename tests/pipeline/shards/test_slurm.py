"""Slurm: a real one on this machine. Its tasks may die and be cancelled; none outlives whoever waits."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.shards import Local
from pipeline.shards.executors import slurm_task
from pipeline.shards.executors.slurm import Slurm
from tests.pipeline.shards import jobs, slurm
from tests.pipeline.shards.jobs import numbers, wait_until
from tests.pipeline.shards.stages import run_stages, write_inputs

ROOT = Path(__file__).parents[3]
NEEDS_SLURM = pytest.mark.skipif(bool(slurm.missing()), reason=slurm.missing() or "Slurm is here")


@pytest.fixture(scope="module")
def queue() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="slurm") as root, slurm.running(Path(root)):
        yield


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """work/ is not that of this checkout."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path / "work"


@NEEDS_SLURM
@pytest.mark.usefixtures("queue")
class TestQueue:
    def test_every_job_is_called_once_and_its_result_has_its_index(self, tmp_path: Path, work: Path) -> None:
        found = list(Slurm(2).run(jobs.square, numbers(7, tmp_path)))
        assert sorted(found) == [(value, value**2) for value in range(7)]
        assert jobs.calls(tmp_path) == dict.fromkeys(range(7), 1)
        assert not list((work / "slurm").iterdir())

    def test_a_task_that_dies_is_made_up_for(self, tmp_path: Path) -> None:
        found = list(Slurm(2, "--comment='a run'").run(jobs.die_once_at_two, numbers(7, tmp_path)))
        assert sorted(found) == [(value, value**2) for value in range(7)]
        assert jobs.calls(tmp_path)[2] == 2

    def test_an_array_that_is_cancelled_is_made_up_for(self, tmp_path: Path) -> None:
        stream = Slurm(2).run(jobs.square_slowly, numbers(12, tmp_path))
        found = [next(stream)]
        subprocess.run(["scancel", "--name=shards"], check=True)
        found += stream
        assert sorted(found) == [(value, value**2) for value in range(12)]

    def test_a_failure_is_raised_and_names_its_shard(self) -> None:
        with pytest.raises(ValueError, match="3 is too much") as failure:
            list(Slurm(1).run(jobs.fail_from_three, numbers(6)))
        assert failure.value.__notes__[-1] == "in shard number 3"
        wait_until(lambda: not slurm.queue(), "the array is cancelled")

    def test_a_task_that_always_dies_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pipeline.shards.executors.slurm.SECONDS_BETWEEN_QUESTIONS", 0.5)
        with pytest.raises(RuntimeError, match=r"3 Slurm job arrays.*number 0.*launch\.slurm_options"):
            list(Slurm().run(jobs.die_always, numbers(1)))

    def test_options_that_sbatch_refuses_are_an_error(self) -> None:
        with pytest.raises(ValueError, match=r"sbatch takes no job array.*--partition=nowhere.*invalid partition"):
            list(Slurm(1, "--partition=nowhere").run(jobs.square, numbers(1)))

    def test_the_stages_make_the_same_bytes(self, tmp_path: Path) -> None:
        there = run_stages(write_inputs(tmp_path / "slurm"), Slurm(2))
        assert there == run_stages(write_inputs(tmp_path / "here"), Local(1))

    def test_ctrl_c_cancels_the_array(self, tmp_path: Path) -> None:
        code = (  # where the tests run in the background, SIGINT is ignored
            "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "from pipeline.shards.executors.slurm import Slurm\nfrom tests.pipeline.shards.jobs import numbers, sleep\n"
            "list(Slurm(2).run(sleep, numbers(4, sys.argv[1])))\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        caller = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        wait_until(lambda: len(jobs.calls(tmp_path)) == 2, "two tasks started")
        caller.send_signal(signal.SIGINT)
        caller.wait(timeout=30)
        wait_until(lambda: not slurm.queue(), "the array is cancelled")


@pytest.mark.parametrize(("silent_for", "done"), [(0, 3), (1000, 0)])
def test_a_task_ends_when_nobody_waits_for_it(tmp_path: Path, silent_for: float, done: int) -> None:
    for name in ("jobs", "taken", "results"):
        (tmp_path / name).mkdir()
    (tmp_path / "function").write_bytes(pickle.dumps(jobs.square))
    for index, job in enumerate(numbers(3)):
        (tmp_path / "jobs" / str(index)).write_bytes(pickle.dumps(job))
    (tmp_path / "heartbeat").touch()
    os.utime(tmp_path / "heartbeat", (time.time() - silent_for,) * 2)
    slurm_task.main(tmp_path)
    assert len(list((tmp_path / "results").iterdir())) == done


def test_where_there_is_no_slurm_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.path.dirname(sys.executable))
    with pytest.raises(ValueError, match=r"launch\.executor is slurm, but there is no sbatch here"):
        list(Slurm().run(jobs.square, numbers(1)))
