"""Kept results: exactly the shards that a change affects are done again, and the bytes are those of a clean run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pipeline.shards import Kept, Local, run_shards
from pipeline.shards.kept import run_and_keep
from pipeline.work import prune_shards
from tests.pipeline.shards import jobs
from tests.pipeline.shards.jobs import Number, numbers, wait_until
from tests.pipeline.shards.stages import run_stages, write_inputs
from tests.project import write_jsonl

ROOT = Path(__file__).parents[3]


def ran(root: Path, **changed: Any) -> Counter[str]:
    """Run the stages: how many jobs of each function ran. What they make must be what a clean run makes."""
    counting = jobs.Counting()
    made = run_stages(root, counting, **changed)
    clean = root.parent / "clean"
    shutil.copytree(root / "input", clean / "input")
    assert run_stages(clean, Local(1), **changed) == made
    shutil.rmtree(clean)
    return +counting.ran  # without zeros


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """The folder of a run that has ended."""
    root = write_inputs(tmp_path / "run")
    assert min(ran(root).values()) >= 1
    return root


def shards(root: Path, stage: str) -> int:
    files = (root / "work" / stage / "done" / "out").rglob("*-*.parquet")
    return len(list(files))


def test_nothing_runs_twice(done: Path) -> None:
    assert ran(done).total() == 0


def test_a_length_of_rows_needs_no_shard(done: Path) -> None:
    assert ran(done, seqlen=96).total() == 0


def test_a_threshold_that_drops_nothing_more_needs_no_shard(done: Path) -> None:
    assert ran(done, min_chars=4).total() == 0


def test_a_decision_writes_the_shards_it_changes(done: Path) -> None:
    found = ran(done, seed=1)
    steps = ("collect", "scan", "weigh", "quote")  # of decontamination: other held-out records have other words
    searched = {f"preprocess.{step}" for step in steps}
    assert set(found) - searched == {"preprocess.write_shard", "tokenize.encode_shard"}
    assert ran(done, seed=0).total() == 0  # and back


@pytest.mark.parametrize("name", ["3.jsonl", "00.jsonl"])  # last, and between others: later shards get other numbers
def test_one_more_file_is_read_alone(done: Path, name: str) -> None:
    before = shards(done, "ingest")
    write_jsonl(done / "input" / name, count=20, seed=9)
    found = ran(done)
    new = shards(done, "ingest") - before
    assert found["ingest.write_shards"] == new / 2  # a file for each kind
    assert found["preprocess.annotate"] == new


def test_a_changed_file_is_read_alone(done: Path) -> None:
    file = done / "input" / "1.jsonl"
    pieces = -(-file.stat().st_size // 10_000)
    file.write_text(file.read_text().replace("forever", "for ever"))
    found = ran(done)
    assert found["ingest.write_shards"] == pieces
    assert found["preprocess.annotate"] == 2 * pieces


def test_other_code_is_another_result(tmp_path: Path) -> None:
    for code, calls in (("one", 1), ("one", 1), ("two", 2)):
        kept = Kept(tmp_path / "kept", code, lambda done, total, unit: None)
        marks = tmp_path / "marks"
        marks.mkdir(exist_ok=True)
        assert run_shards(jobs.square, numbers(3, marks), title="t", executor=Local(1), kept=kept) == [0, 1, 4]
        assert jobs.calls(marks) == dict.fromkeys(range(3), calls)


def test_a_kill_costs_what_was_being_done(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tests.pipeline.shards.test_kept import square_all\n"
        "if __name__ == '__main__': square_all(sys.argv[1])\n"
    )
    (tmp_path / "marks").mkdir()
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT)
    wait_until(lambda: len(list((tmp_path / "kept").glob("[!.]*"))) >= 3, "three results")
    process.kill()
    process.wait()
    assert square_all(str(tmp_path)) == [value**2 for value in range(12)]
    again = [count - 1 for count in jobs.calls(tmp_path / "marks").values()]
    assert len(again) == 12
    assert sum(again) <= 2  # as many as there were workers


def square_all(folder: str) -> list[int]:
    kept = Kept(Path(folder, "kept"), "code", lambda done, total, unit: None)
    todo = numbers(12, Path(folder, "marks"))
    return run_shards(jobs.square_slowly, todo, title="squares", executor=Local(2), kept=kept)


def test_a_job_that_fails_leaves_nothing(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", "code", lambda done, total, unit: None)
    with pytest.raises(ValueError, match="3 is too much"):
        run_shards(jobs.fail_from_three, numbers(5), title="fails", executor=Local(1), kept=kept)
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_two_at_the_same_job_do_not_meet(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept", "code", lambda done, total, unit: None)
    folders = [tmp_path / "one", tmp_path / "two"]
    entries = kept.entries(jobs.write_twice, [Number(3, folder=folder) for folder in folders])
    assert entries[0].path == entries[1].path
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(partial(run_and_keep, jobs.write_twice), entries)) == [3, 3]
    assert sorted(kept.load(entries)) == [0, 1]
    for folder in folders:
        assert {file.name: file.read_text() for file in folder.iterdir()} == {"first": "3", "second": "3"}
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [entries[0].path.name]


def test_results_that_are_not_used_for_14_days_go(tmp_path: Path) -> None:
    entries = []
    for stage, days in (("one", 13), ("two", 15)):
        kept = Kept(tmp_path / "shards" / stage, "code", lambda done, total, unit: None)
        run_shards(jobs.square, [Number(1)], title="t", executor=Local(1), kept=kept)
        entries += kept.entries(jobs.square, [Number(1)])
        os.utime(entries[-1].path, (time.time() - days * 86400,) * 2)
    (gone,) = prune_shards(tmp_path)
    assert (gone.stage, gone.count) == ("two", 1)
    assert entries[0].path.exists()
    assert not entries[1].path.exists()
    (gone,) = prune_shards(tmp_path, everything=True)
    assert gone.stage == "one"
    assert not entries[0].path.exists()
