"""Run one pure function over many shards.

A job is a picklable value that holds all its shard needs; the function lives at the top of an importable
module (never `__main__`) and writes files of its own. An executor says where.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial

from pipeline.progress import Progress
from pipeline.shards.executors import Executor, J, R
from pipeline.shards.kept import Kept, hand_over, run_and_keep

SECONDS_BETWEEN_NOTES = 0.5
"""Of how far the work has come, in its folder: to replace a file takes longer than to take over a small shard."""


def run_shards(
    function: Callable[[J], R],
    jobs: Sequence[J],
    *,
    title: str,
    executor: Executor,
    kept: Kept,
) -> list[R]:
    """Call `function` on every job and return the results in the order of the jobs.

    Args:
        function: pure, at the top of an importable module.
        jobs: one per shard; a dataclass each.
        title: what the progress is called.
        executor: where to run.
        kept: the results there are: only the jobs without one run.

    Raises:
        Exception: whatever `function` raised, for the first shard that failed, with a note naming the shard.
        RuntimeError: workers died.
    """
    entries = kept.entries(function, jobs)
    results = kept.load(entries)
    todo = [index for index in range(len(jobs)) if index not in results]
    noted = time.monotonic()
    with (
        closing(executor.run(partial(run_and_keep, function), [entries[index] for index in todo])) as stream,
        Progress(title, len(jobs), "shard", done=len(results)) as bar,
    ):
        for place, result in stream:
            index = todo[place]
            hand_over(entries[index])
            results[index] = result
            bar.advance()
            if len(results) == len(jobs) or time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
                kept.progress(len(results), len(jobs), "shard")
                noted = time.monotonic()
    return [results[index] for index in range(len(jobs))]
