"""Anonymous memory of this process: what it holds beside the pages of files, which the kernel may drop (Linux)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Peak:
    """The most that was seen, looking 200 times a second."""

    def __init__(self) -> None:
        self.before_mb = self.peak_mb = resident_mb()

    @property
    def added_mb(self) -> float:
        """What came on top of what there was."""
        return self.peak_mb - self.before_mb


def resident_mb() -> float:
    """RssAnon now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Look on while the block runs."""
    peak, ended = Peak(), threading.Event()

    def look() -> None:
        while not ended.wait(0.005):
            peak.peak_mb = max(peak.peak_mb, resident_mb())

    watch = threading.Thread(target=look, daemon=True)
    watch.start()
    yield peak
    ended.set()
    watch.join()
