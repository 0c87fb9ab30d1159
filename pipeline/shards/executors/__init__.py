"""Executors say where the shards of a stage are worked on, and call a function on each there.

The stages take one and hand it to `run_shards`; `executor_for` makes the one that params.yaml names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.shards.executors.base import Executor, J, Job, R
from pipeline.shards.executors.inside import Threads
from pipeline.shards.executors.local import Local

if TYPE_CHECKING:
    from pipeline.params import LaunchParams

__all__ = ["Executor", "J", "Job", "Local", "R", "Threads", "executor_for"]


@contextmanager
def executor_for(launch: LaunchParams, *, jobs: int = 0, module: str = "") -> Iterator[Executor]:
    """The executor that the section `launch` of params.yaml names, for all that a stage runs.

    Args:
        jobs: how many the first run will have, where that is known: processes of this machine start for them now, so
            that what they import (the `module` that the function is in) does not wait for what the stage imports.
    """
    match launch.executor.name:
        case "ray":
            from pipeline.shards.executors.ray import Ray

            yield Ray(launch.workers, launch.ray_address)
        case "slurm":
            from pipeline.shards.executors.slurm import Slurm

            yield Slurm(launch.workers, launch.slurm_options)
        case _:
            with Local(launch.workers) as local:
                local.start(jobs, module)
                yield local
