"""Local processes: every job once, the first failure in order, dead workers, and none that outlives its caller."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipeline.shards import Local
from tests.pipeline.shards import jobs
from tests.pipeline.shards.jobs import numbers, wait_until
from tests.pipeline.shards.stages import run_stages, write_inputs

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_job_is_called_once_and_its_result_has_its_index(tmp_path: Path, workers: int) -> None:
    found = list(Local(workers).run(jobs.square, numbers(7, tmp_path)))
    assert sorted(found) == [(value, value**2) for value in range(7)]
    assert jobs.calls(tmp_path) == dict.fromkeys(range(7), 1)
    assert list(Local(workers).run(jobs.square, [])) == []


def test_a_slow_first_job_holds_nothing_back(tmp_path: Path) -> None:
    order = [index for index, _ in Local(2).run(jobs.square_of_seven, numbers(7, tmp_path))]
    assert sorted(order) == list(range(7))
    assert 0 in order[-2:]  # two may end at a time


def test_workers_are_other_processes_with_one_polars_thread() -> None:
    results = [result for _, result in Local(2).run(jobs.where, numbers(2))]
    assert os.getpid() not in {pid for pid, _, _ in results}
    assert {threads for _, threads, _ in results} == {"1"}
    ((_, (pid, _, _)),) = Local(2).run(jobs.where, numbers(1))
    assert pid == os.getpid()


@pytest.fixture
def two_cores() -> Iterator[set[int]]:
    """All that this process has, for a while."""
    if not hasattr(os, "sched_setaffinity") or len(everywhere := os.sched_getaffinity(0)) < 2:
        pytest.skip("no two cores to choose")
    os.sched_setaffinity(0, own := set(sorted(everywhere)[:2]))
    yield own
    os.sched_setaffinity(0, everywhere)


@pytest.mark.parametrize(("workers", "each_has"), [(2, 1), (3, 2)])
def test_workers_have_a_core_each_if_they_share_out_all(two_cores: set[int], workers: int, each_has: int) -> None:
    found = dict(result for _, result in Local(workers).run(jobs.own_cores, numbers(12)))
    assert len(found) > 1
    assert {len(own) for own in found.values()} == {each_has}
    assert set().union(*found.values()) == two_cores == os.sched_getaffinity(0)


def workers_here() -> set[int]:
    """The processes of all pools of this process."""
    return {process.pid for process in multiprocessing.active_children()}


@pytest.fixture
def no_workers() -> None:
    """A Local that nobody holds any more ends its workers, too."""
    wait_until(lambda: not workers_here(), "workers of other tests are left")


@pytest.mark.usefixtures("no_workers")
def test_the_same_workers_serve_every_run_and_end_with_the_block(tmp_path: Path) -> None:
    with Local(2) as local:
        list(local.run(jobs.square_of_seven, numbers(7, tmp_path)))  # needs two at a time
        workers = workers_here()
        assert len(workers) == 2
        assert {pid for _, (pid, _, _) in local.run(jobs.where, numbers(20))} <= workers
        assert workers_here() == workers
    assert not workers_here()


@pytest.mark.usefixtures("no_workers")
def test_a_run_that_fails_or_is_not_heard_to_its_end_ends_the_workers(tmp_path: Path) -> None:
    with Local(2) as local:
        with pytest.raises(ValueError, match="3 is too much"):
            list(local.run(jobs.fail_from_three, numbers(40)))
        assert not workers_here()
        stream = local.run(jobs.square, numbers(40))
        next(stream)
        stream.close()
        assert not workers_here()
        assert len(list(local.run(jobs.square, numbers(40)))) == 40


@pytest.mark.usefixtures("no_workers")
def test_no_more_workers_start_than_there_are_jobs() -> None:
    with Local(8) as local:
        list(local.run(jobs.square, numbers(1)))
        assert not workers_here()
        list(local.run(jobs.square, numbers(2)))
        assert len(workers_here()) <= 2


@pytest.mark.usefixtures("no_workers")
def test_workers_that_start_ahead_import_the_module_and_serve_the_run() -> None:
    with Local(2) as local:
        local.start(1, "colorsys")  # one job runs here
        assert not workers_here()
        local.start(9, "colorsys")
        workers = workers_here()
        assert workers
        found = [result for _, result in local.run(jobs.has_colorsys, numbers(6))]
        assert workers <= workers_here()
        assert any(imported for _, imported in found)
    assert not workers_here()
    assert not any(imported for _, (_, imported) in Local(2).run(jobs.has_colorsys, numbers(6)))


def test_a_worker_does_without_what_its_shards_do_not_need() -> None:
    """Each worker of each stage waits for what it imports."""
    code = (
        "import sys\n"
        "import pipeline.ingest.embedded, pipeline.ingest.formats, pipeline.ingest.shard\n"
        "import pipeline.tokenize.encode, pipeline.tokenize.write_rows\n"
        "import pipeline.preprocess.annotate, pipeline.preprocess.write, pipeline.preprocess.contamination.scan\n"
        "unneeded = {'yaml', 'omegaconf', 'psutil', 'tqdm', 'ftfy', 'pyarrow', 'ray', 'torch', 'mlflow'}\n"
        "print(sorted(unneeded & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


def test_a_worker_that_dies_between_two_runs_is_replaced() -> None:
    with Local(2) as local:
        (victim, *_), *_ = (result for _, result in local.run(jobs.where, numbers(2)))
        os.kill(victim, signal.SIGKILL)
        assert sorted(local.run(jobs.square, numbers(9))) == [(value, value**2) for value in range(9)]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_first_failure_in_order_is_raised_and_names_its_shard(tmp_path: Path, workers: int) -> None:
    with pytest.raises(ValueError, match="3 is too much") as failure:
        list(Local(workers).run(jobs.fail_from_three, numbers(40, tmp_path)))
    assert failure.value.__notes__ == ["in shard number 3"]
    assert len(jobs.calls(tmp_path)) < 20  # nothing new was begun


def test_the_shard_of_a_worker_that_died_is_done_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = list(Local(2).run(jobs.die_once_at_two, numbers(9, tmp_path)))
    assert sorted(found) == [(value, value**2) for value in range(9)]
    assert jobs.calls(tmp_path)[2] == 2
    assert "a worker process died" in capfd.readouterr().err


def test_the_stages_make_the_same_bytes_though_workers_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.tokenize.encoding.ENCODED_MEANWHILE", 0)
    monkeypatch.setattr("pipeline.tokenize.pack.TOKENS_OF_A_JOB", 1 << 10)
    (tmp_path / "died").mkdir()
    with Local(2) as local:
        made = run_stages(write_inputs(tmp_path / "two"), jobs.Striking(local, tmp_path / "died"))
    steps = {"annotate", "write_shard", "encode_shard", "write_rows"}
    assert {step.name for step in (tmp_path / "died").iterdir()} >= steps
    assert made == run_stages(write_inputs(tmp_path / "one"), Local(1))


def test_a_worker_that_dies_again_is_an_error_that_names_the_shard(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"shard number 2: .* died.*ingest\.shard_mb"):
        list(Local(2).run(jobs.die_at_two, numbers(9, tmp_path)))
    assert jobs.calls(tmp_path)[2] == 2


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_caller(tmp_path: Path, signal_number: int) -> None:
    code = (  # where the tests run in the background, SIGINT is ignored
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pipeline.shards import Local\nfrom tests.pipeline.shards.jobs import numbers, sleep\n"
        "if __name__ == '__main__': list(Local(2).run(sleep, numbers(2, sys.argv[1])))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    caller = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    wait_until(lambda: len(jobs.calls(tmp_path)) == 2, "no workers started")
    workers = jobs.all_below(caller.pid)
    assert len(workers) >= 2
    caller.send_signal(signal_number)
    caller.wait(timeout=20)
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
