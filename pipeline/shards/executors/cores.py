"""How many cores there are, and who has which."""

from __future__ import annotations

import os


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(processes: int) -> list[set[int]]:
    """Of each of so many processes, the cores that it may use: one if this process has as many, else all that this one
    has; no list where the system does not say."""
    own = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if len(own) == processes:
        return [{core} for core in sorted(own)]
    return [own] * processes if own else []


def stay_on(own: set[int]) -> None:
    """Keep this process and the threads that it will start on some cores."""
    os.sched_setaffinity(0, own)
