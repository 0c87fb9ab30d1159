"""Which execution of the pipeline a stage belongs to: all stages that one `dvc` process starts share a parent run."""

from __future__ import annotations

import time
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Execution:
    """`key` tells executions apart on this machine; `name` is what people read."""

    key: str
    name: str


def current_execution() -> Execution:
    """The execution of the nearest `dvc` process above this one; without one, a stage by itself is an execution."""
    this = psutil.Process()
    owner = next((process for process in this.parents() if _is_dvc(process)), this)
    started = owner.create_time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(started))
    return Execution(
        key=f"{int(started * 1000)}-{owner.pid}", name=f"{'dvc' if owner is not this else 'stage'} {stamp}"
    )


def _is_dvc(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()[:3]
    except psutil.Error:
        return False
    return any(word.rsplit("/", 1)[-1] == "dvc" for word in words)
