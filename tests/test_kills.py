"""SIGKILL at random moments of every stage: what is made in the end is what an uninterrupted run makes."""

from __future__ import annotations

import json
import random
import subprocess
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from tests.project import SMALL, STAGES, Project, write_jsonl

LONGER = {
    "ingest.source": "data/input/mine.jsonl",
    "ingest.shard_mb": 0.02,
    "base.budget": 150,
    "base.validate_every": 20,
    "finetune.budget": 150,
    "finetune.validate_every": 20,
    "evaluate.samples": 20,
    "evaluate.max_new_tokens": 32,
    "launch.checkpoint_seconds": 0,
}
MADE = (
    "data/ingested",
    "data/clean",
    "data/tokens",
    "artifacts/base/model",
    "artifacts/finetune/model",
    "artifacts/export",
)
VICTIMS = ("stage", "dvc", "make", "tree", "stage")
"""Each stage is hit five times: thirty-five kills."""
TRAINERS = ("base", "finetune")
DEADLINE = 600
"""Seconds; far more than it takes, whatever it is: the machine may be busy."""


def project(path: Path) -> Project:
    made = Project(path)
    write_jsonl(made.path / "data/input/mine.jsonl", count=1500)
    made.set_all(SMALL | LONGER)
    return made


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Project:
    """A run that nothing interrupted."""
    made = project(tmp_path_factory.mktemp("whole") / "clone")
    assert made.repro() == STAGES
    return made


def test_thirty_five_kills_at_random_moments_change_nothing(whole, tmp_path):
    killed = project(tmp_path / "clone")
    draw = random.Random(0)
    for stage in STAGES:
        for victim in VICTIMS:
            moment = draw.uniform(0, seconds(whole, stage))
            while not hit(killed, stage, victim, moment):
                moment /= 2
    for stage in TRAINERS:  # random moments may all lie before its first step
        while not hit_in_training(killed, stage):
            pass
    done = killed.run("dvc", "repro", "--no-run-cache")
    assert done.returncode == 0, done.stderr
    assert_all_gone(killed, [])
    assert killed.hashes(*MADE) == whole.hashes(*MADE)
    for name in ("metrics.json", "samples.jsonl"):
        assert (killed.path / "artifacts/evaluate" / name).read_bytes() == (
            whole.path / "artifacts/evaluate" / name
        ).read_bytes()
    assert_one_at_a_time(killed)


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_a_stage_whose_dvc_is_killed_in_its_first_moments_does_not_live_on(whole, delay):
    run = popen(whole, "dvc", "repro", "--force", "--single-item", "preprocess")
    stage = wait_for(whole, "preprocess", run)
    assert stage is not None
    time.sleep(delay)
    run.kill()
    run.wait()
    assert_all_gone(whole, [stage])


def test_dvc_killed_while_it_writes_dvc_lock_is_no_obstacle(whole):
    whole.repro()  # what was killed before this test
    before, lock = whole.hashes(*MADE), whole.path / "dvc.lock"
    size = lock.stat().st_size
    assert any(killed_while_it_writes(whole, lock) for _ in range(10))
    deadline = time.monotonic() + DEADLINE
    while lock.stat().st_size < size:  # who brings the run to MLflow outlives it, and mends
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert whole.repro() in ([], ["preprocess"])
    assert whole.hashes(*MADE) == before


def killed_while_it_writes(whole: Project, lock: Path) -> bool:
    """Whether dvc was killed with dvc.lock half written: that takes it a tenth of a second, which is easily missed."""
    size = lock.stat().st_size
    run = popen(whole, "dvc", "repro", "--force", "--single-item", "preprocess")
    while lock.stat().st_size == size and run.poll() is None:
        time.sleep(0.001)
    run.kill()
    run.wait()
    return lock.stat().st_size < size


def test_make_repro_mends_a_dvc_lock_that_was_cut_off_by_the_end_of_all(whole):
    lock = whole.path / "dvc.lock"
    kept = lock.read_bytes()
    lock.write_bytes(kept[: kept.index(b"cmd", len(kept) // 2) + 3])
    assert "`make repro` puts back" in whole.run("python", "-m", "pipeline.status").stderr
    done = whole.run("python", "-m", "pipeline.repro")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dvc.lock: cut off when dvc was killed; put right" in done.stdout
    assert lock.read_bytes() == kept


def seconds(whole: Project, stage: str) -> float:
    """From the start of the stage's process to its end, imports too."""
    (log,) = whole.path.glob(f"work/events/*/{stage}.jsonl")
    events = read(log)
    return 2.0 + events[-1]["time"] - events[0]["time"]


def hit(project: Project, stage: str, victim: str, moment: float) -> bool:
    """Kill the victim so many seconds into the stage."""
    make, process = start(project, stage)
    with suppress(psutil.TimeoutExpired):
        process.wait(moment)
    return struck(project, victim, make, process)


def hit_in_training(project: Project, stage: str) -> bool:
    """Kill the stage once it has told of a loss; a miss where it has ended before."""
    make, process = start(project, stage)
    known = len(trainings(project, stage))
    while len(trainings(project, stage)) == known and lives(process):
        time.sleep(0.03)
    return struck(project, "stage", make, process)


def struck(project: Project, victim: str, make: subprocess.Popen[bytes], process: psutil.Process) -> bool:
    """Kill the victim now.

    Where the stage has ended before, that is a miss: all is killed, and the stage will begin anew.
    """
    ended = not lives(process)
    family = kill("tree" if ended else victim, make, process)
    hit = make.wait(DEADLINE) != 0 and not ended
    if victim != "dvc" or ended:  # after that one, on at once: what is left of the stage must not be in the way
        assert_all_gone(project, family)
    if not hit:
        forget_work(project)
    return hit


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start(project: Project, stage: str) -> tuple[subprocess.Popen[bytes], psutil.Process]:
    """`make repro`, and the process of `stage`; a stage that is done already runs alone, from its start."""
    make = popen(project, "make", "-o", ".venv/.ready", "repro")
    process = wait_for(project, stage, make)
    if process is None:
        if make.poll() is None:  # at a later stage, which is not waited for
            family = kill("tree", make)
            make.wait(DEADLINE)
            assert_all_gone(project, family)
        else:
            assert make.returncode == 0, (project.path / "work.log").read_text()[-2000:]
        forget_work(project)
        make = popen(project, "python", "-m", "pipeline.repro", "--force", "--single-item", stage)
        process = wait_for(project, stage, make)
    assert process is not None, (project.path / "work.log").read_text()[-2000:]
    return make, process


def forget_work(project: Project) -> None:
    """So that the next run of a stage computes, and does not publish what is made already."""
    assert project.run("python", "-m", "pipeline.work", "prune", "--all").returncode == 0


def popen(project: Project, *command: str) -> subprocess.Popen[bytes]:
    with (project.path / "work.log").open("a") as log:
        return subprocess.Popen(command, **project.surroundings(), stdout=log, stderr=log, start_new_session=True)


def wait_for(project: Project, stage: str, make: subprocess.Popen[bytes]) -> psutil.Process | None:
    """The process of `stage` once it runs; None if it is passed over: a later stage runs, or make has ended."""
    later = STAGES[STAGES.index(stage) + 1 :]
    deadline = time.monotonic() + DEADLINE
    while make.poll() is None:
        for process in below(make.pid):
            if is_stage(process, stage):
                return process
            if any(is_stage(process, other) for other in later):
                return None
        assert time.monotonic() < deadline, stage
        time.sleep(0.03)
    return None


def below(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def is_stage(process: psutil.Process, stage: str) -> bool:
    return command(process)[1:3] == ["-m", f"pipeline.{stage}"]


def is_dvc(process: psutil.Process) -> bool:
    return any(word.endswith("/dvc") for word in command(process)[:2])


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def kill(victim: str, make: subprocess.Popen[bytes], stage: psutil.Process | None = None) -> list[psutil.Process]:
    """Kill one of them, or all; returns all below make."""
    family = below(make.pid)
    victims = {
        "stage": [stage],
        "dvc": [process for process in family if is_dvc(process)],
        "make": [psutil.Process(make.pid)],
        "tree": [psutil.Process(make.pid), *family],
    }
    for process in victims[victim]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    return family


def assert_all_gone(project: Project, family: list[psutil.Process]) -> None:
    """No process of the project stays; nor one that waits to be reaped, which DVC would see.

    A stage has 20 s to save its work, and the feeder of MLflow 10 s for its last words: of a machine that is not busy.
    """
    deadline = time.monotonic() + 120
    while left := [process for process in psutil.process_iter() if process in family or lives_in(process, project)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def lives_in(process: psutil.Process, project: Project) -> bool:
    try:
        return process.cwd().startswith(str(project.path))
    except psutil.Error:
        return False


def assert_one_at_a_time(project: Project) -> None:
    """What the runs of a stage told of themselves never overlaps: one's training ends before the next one's begins."""
    for stage in TRAINERS:
        spans = sorted((times[0], times[-1]) for times in trainings(project, stage))
        assert len(spans) > 1
        assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans)), spans


def trainings(project: Project, stage: str) -> list[list[float]]:
    """When each run of a stage that took a step told of its loss."""
    told = []
    for log in project.path.glob(f"work/events/*/{stage}*.jsonl"):
        times = [event["time"] for event in read(log) if event["kind"] == "metrics" and "loss" in event["values"]]
        told += [times] if times else []
    return told


def read(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
