"""What an executor is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar


class Job(Protocol):
    """What a shard's function is called with: any picklable value that can say which shard it is.

    The files that the function writes, if any, are those of `folder`, a directory for this job alone.
    """

    @property
    def name(self) -> str:
        """The shard, as an error names it."""
        ...

    @property
    def folder(self) -> Path | None: ...


J = TypeVar("J", bound=Job)
R = TypeVar("R")


class Executor(Protocol):
    """Calls functions on jobs, on some machines."""

    @property
    def here(self) -> int:
        """How many jobs run at a time if all do on this machine, so that they may write a file together; else 0."""
        ...

    def start(self, jobs: int, module: str) -> None:
        """Get ready for a run of so many jobs, while the caller does something else.

        Args:
            module: the one that the function of the jobs is in.
        """
        ...

    def run(self, function: Callable[[J], R], jobs: Sequence[J]) -> Generator[tuple[int, R], None, None]:
        """Call `function` on every job and yield the index of each job with its result, as they come.

        Closing the generator ends the work on what is left.

        Args:
            function: pure, picklable: at the top of an importable module (never `__main__`), or a partial of one.

        Raises:
            Exception: whatever `function` raised, for the first job in order that fails, with a note naming it.
            RuntimeError: a worker died.
        """
        ...
