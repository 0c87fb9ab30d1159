"""How many cores there are, and who has which."""

from __future__ import annotations

import os


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def a_core_each(processes: int) -> list[int]:
    """Numbers of the cores of so many processes that have one each, all of this process's; none where those are not as
    many, or where the system does not say."""
    own = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return own if len(own) == processes else []


def stay_on(core: int) -> None:
    """Keep this process and the threads that it will start on a core."""
    os.sched_setaffinity(0, {core})
