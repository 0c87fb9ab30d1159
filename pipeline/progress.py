"""Progress for people: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Never, TypeVar

if TYPE_CHECKING:
    from tqdm import tqdm

Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Counts up to `total`; use as a context manager.

    `done` are done already: by a run that was stopped.
    """

    def __init__(self, what: str, total: int, unit: str, done: int = 0) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = self._first = done
        self._notes: dict[str, float] = {}
        self._start = self._last_line = time.monotonic()
        self._bar = self._on_terminal() if sys.stderr.isatty() else None

    def _on_terminal(self) -> tqdm[Never]:
        from tqdm import tqdm  # takes a while, which a log does without

        return tqdm(total=self._total, initial=self._done, desc=self._what, unit=self._unit, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def over(self, items: Iterable[Item], size: Callable[[Item], int] = lambda item: 1) -> Iterator[Item]:
        """`items`, each of which counts as `size` of it once the next one is asked for."""
        for item in items:
            yield item
            self.advance(size(item))

    def note(self, **values: float) -> None:
        """Numbers to show beside the count from now on."""
        self._notes |= values
        if self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4g}" for name, value in self._notes.items()}, refresh=False)

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(count)
        elif now - self._last_line > SECONDS_BETWEEN_LINES and self._done < self._total:
            self._last_line = now
            rate = (self._done - self._first) / (now - self._start)
            left = (self._total - self._done) / rate
            notes = "".join(f", {name} {value:.4g}" for name, value in self._notes.items())
            self.line(
                f"{self._what}: {self._done}/{self._total} {self._unit}s{notes}, "
                f"{rate:.3g} {self._unit}s/s, about {left:.0f} s left"
            )

    def line(self, text: str) -> None:
        """Print a line without breaking the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stdout)
            sys.stdout.flush()
        else:
            print(text, flush=True)
