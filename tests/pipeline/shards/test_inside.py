"""Threads of this process: every job once, the first failure in order, and no job left at work."""

import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.shards import Threads
from tests.pipeline.shards import jobs
from tests.pipeline.shards.jobs import numbers


def test_every_job_is_called_once_here_and_its_result_has_its_index(tmp_path: Path) -> None:
    found = list(Threads().run(jobs.square, numbers(7, tmp_path)))
    assert sorted(found) == [(value, value**2) for value in range(7)]
    assert jobs.calls(tmp_path) == dict.fromkeys(range(7), 1)
    assert list(Threads().run(jobs.square, [])) == []
    assert {result[0] for _, result in Threads().run(jobs.where, numbers(3))} == {os.getpid()}


@pytest.mark.parametrize("count", [1, 3])
def test_no_more_threads_work_than_are_allowed(tmp_path: Path, count: int) -> None:
    before = threading.active_count()
    with closing(Threads(count).run(jobs.square_slowly, numbers(9, tmp_path))) as stream:
        for _ in stream:
            assert threading.active_count() <= before + count
    assert Threads(99).here == 4


def test_the_first_failure_in_order_is_raised_and_names_its_shard(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="3 is too much") as failure:
        list(Threads().run(jobs.fail_from_three, numbers(40, tmp_path)))
    assert failure.value.__notes__ == ["in shard number 3"]
    assert len(jobs.calls(tmp_path)) < 20  # nothing new was begun


def test_a_run_that_is_closed_leaves_nothing_at_work(tmp_path: Path) -> None:
    before = threading.active_count()
    with closing(Threads().run(jobs.square_slowly, numbers(40, tmp_path))) as stream:
        next(stream)
    assert threading.active_count() == before
    assert len(jobs.calls(tmp_path)) < 20
