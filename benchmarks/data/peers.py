"""datatrove in an environment of its own, and what a command takes.

    python -m benchmarks.data.peers        # make .venv-peers, if it is not there, and say which versions it has

The environment is outside requirements.lock: nothing of the pipeline needs it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
import time
import venv
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / ".venv-peers"
PR_SET_CHILD_SUBREAPER = 36
"""Of linux/prctl.h."""
PACKAGES = (
    "datatrove==0.10.*",
    "spacy>=3.8",
    "pyarrow",
    "orjson",
    "zstandard",
    "xxhash<4",
    "regex",
    "fasteners",
    "tokenizers",
    "ftfy",
)
"""datatrove and what its readers, English words, MinHash, tokenizer and cleaning want."""


@dataclass(frozen=True)
class Cost:
    """What a command took: wall and CPU seconds and the peak of memory (MB, proportional set size), all processes."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    stdout: str


def environment() -> Path:
    """The Python of the peers' environment, made on first use (some minutes, from the package index)."""
    python = ENVIRONMENT / "bin" / "python"
    ready = ENVIRONMENT / ".ready"
    if not ready.exists() or ready.read_text() != "\n".join(PACKAGES):
        venv.create(ENVIRONMENT, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES], check=True
        )
        ready.write_text("\n".join(PACKAGES))
    return python


def run_script(script: str, *args: str | Path) -> Cost:
    """Run the text of a script in the peers' environment.

    A script with a `LocalPipelineExecutor` runs it under `if __name__ == "__main__":`, since its workers import it.
    """
    python = environment()
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        path = Path(folder) / "script.py"
        path.write_text(script)
        return run_measured([str(python), str(path), *map(str, args)])


def run_measured(command: list[str], threads: int | None = None) -> Cost:
    """Run a command to its end, with its error output passed on.

    Args:
        command: the program and its arguments.
        threads: POLARS_MAX_THREADS and OMP_NUM_THREADS for it.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    env = {**os.environ, "PYTHONPATH": str(ROOT), "LOGURU_LEVEL": "ERROR"}  # datatrove's log
    env.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, on either side, as Python does it unless told otherwise
    if threads:
        env |= {"POLARS_MAX_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    watch = _Watch(process.pid)
    assert process.stdout is not None
    stdout = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    watch.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stdout)
    waited_for = usage.ru_utime + usage.ru_stime + _seconds_of_orphans()
    return Cost(seconds, max(waited_for, sum(watch.cpu_seconds.values())), watch.peak_mb, stdout)


def _seconds_of_orphans() -> float:
    """The CPU time of the processes that outlived who started them (a fork server's workers, the server itself), which
    come to this process to be waited for; on Linux."""
    seconds = 0.0
    while True:
        try:
            usage = os.wait4(-1, 0)[2]
        except ChildProcessError:
            return seconds
        seconds += usage.ru_utime + usage.ru_stime


class _Watch(threading.Thread):
    """Looks at a process and its descendants five times a second.

    The CPU time of a process that its parent does not wait for (a fork server's) is known from looking only, where no
    orphans are waited for.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.peak_mb = 0.0
        self.cpu_seconds: dict[int, float] = {}
        self.ended = threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            size = 0
            for process in self._tree():
                try:
                    size += process.memory_full_info().pss
                    times = process.cpu_times()
                except psutil.Error:
                    continue
                self.cpu_seconds[process.pid] = times.user + times.system
            self.peak_mb = max(self.peak_mb, size / 1e6)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.Error:
            return []

    def stop(self) -> None:
        self.ended.set()
        self.join()


def main() -> None:
    """Make the environment and print what is in it."""
    subprocess.run([environment(), "-m", "pip", "list", "--format=freeze"], check=True, stdout=sys.stdout)


if __name__ == "__main__":
    main()
