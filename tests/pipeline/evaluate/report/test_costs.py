"""Which run's cost a stage is said to have: that of the run whose outputs lie there, or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.evaluate.report.costs import cost_so_far, stage_costs
from pipeline.tracking.events import EventLog

MADE = {"base": {"artifacts/base/model": "aaa", "artifacts/base/curves": "ccc"}}
AGE = iter(range(1, 1000))


def write_log(
    logs: Path,
    execution: str,
    model: str = "aaa",
    *,
    seconds: float = 10.0,
    status: str = "FINISHED",
    stem: str = "base",
    republished: bool = False,
) -> Path:
    """A stage's log in the folder of its execution, newer than those before."""
    folder = logs / execution
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "execution.jsonl").exists():
        with_time(folder / "execution.jsonl", ("start", 99.0, {"execution_name": f"repro {execution}"}))
    events = [
        ("start", 100.0, {"execution": execution, "stage": "base", "code": {"commit": "c0ffee", "dirty": True}}),
        ("metrics", 101.0, {"values": {"loss": 3.0}, "tokens": 5}),
        ("system", 101.0, {"values": {"system/process_memory_megabytes": 500.0}}),
        ("metrics", 102.0, {"values": {"tokens_per_second": 7.0, "peak_memory_mb": 64.0}, "tokens": 9}),
        ("tags", 103.0, {"values": {"artifacts/base/model": model, "artifacts/base/curves": "ccc"}}),
        *([("republished", 103.5, {})] if republished else []),
        ("end", 100.0 + seconds, {"status": status}),
    ]
    path = with_time(folder / f"{stem}.jsonl", *events)
    os.utime(path, (next(AGE),) * 2)
    return path


def with_time(path: Path, *events: tuple[str, float, dict]) -> Path:
    log = EventLog(path)
    for kind, time, fields in events:
        log.append(kind, **{"time": time, **fields})
    log.close()
    return path


def test_the_run_that_made_the_outputs_is_found_behind_newer_ones(tmp_path):
    write_log(tmp_path, "right", seconds=12.5)
    write_log(tmp_path, "other weights", model="bbb")
    write_log(tmp_path, "failed", status="FAILED")
    write_log(tmp_path, "published again", seconds=0.1, republished=True)
    cost = stage_costs(tmp_path, MADE)["base"]
    assert (cost.execution, cost.seconds) == ("repro right", 12.5)
    assert (cost.commit, cost.dirty) == ("c0ffee", True)
    assert (cost.tokens_per_second, cost.peak_memory_mb) == (7.0, 64.0)


def test_the_newest_of_several_counts_a_second_run_within_an_execution_too(tmp_path):
    write_log(tmp_path, "one", seconds=1.0)
    write_log(tmp_path, "one", seconds=2.0, stem="base-2")
    assert stage_costs(tmp_path, MADE)["base"].seconds == 2.0


@pytest.mark.parametrize("other", [{"model": "bbb"}, {"status": "KILLED"}, {"stem": "finetune"}])
def test_without_the_run_nothing_is_said(tmp_path, other):
    write_log(tmp_path, "one", **other)
    assert stage_costs(tmp_path, MADE) == {}
    assert stage_costs(tmp_path / "none", MADE) == {}


def test_an_empty_log_and_one_that_was_cut_off_are_passed_over(tmp_path):
    whole = write_log(tmp_path, "one")
    (tmp_path / "one/base-2.jsonl").touch()
    (tmp_path / "one/base-3.jsonl").write_text(whole.read_text()[:-30])
    assert stage_costs(tmp_path, MADE)["base"].seconds == 10.0


def test_a_stage_that_says_nothing_of_its_memory_has_the_largest_sample(tmp_path):
    path = tmp_path / "one/base.jsonl"
    path.parent.mkdir()
    samples = [
        ("system", 1.0, {"values": {"system/process_memory_megabytes": mb}}) for mb in (100.0, 2**20 / 1e6 * 300)
    ]
    start, tags = {"execution": "1-2"}, {"values": MADE["base"]}
    with_time(path, ("start", 0.0, start), *samples, ("tags", 2.0, tags), ("end", 3.0, {"status": "FINISHED"}))
    cost = stage_costs(tmp_path, MADE)["base"]
    assert cost.peak_memory_mb == pytest.approx(300)
    assert (cost.execution, cost.commit, cost.tokens_per_second) == ("1-2", "", None)


def test_the_present_run_costs_what_it_took_so_far(tmp_path):
    log = write_log(tmp_path, "now")
    assert cost_so_far(log, now=130.0, peak_memory_mb=5.0).seconds == 30.0
