"""Executors: values that say where the shards of a stage are worked on, and call a function on each there.

The stages take one and hand it to `run_shards`; `executor_for` makes the one that params.yaml names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.shards.executors.base import Executor, J, Job, R
from pipeline.shards.executors.local import Local

if TYPE_CHECKING:
    from pipeline.params import LaunchParams

__all__ = ["Executor", "J", "Job", "Local", "R", "executor_for"]


def executor_for(launch: LaunchParams) -> Executor:
    """The executor that the section `launch` of params.yaml names."""
    return Local(launch.workers)
