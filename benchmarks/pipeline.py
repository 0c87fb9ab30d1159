"""The default pipeline in a clean clone: minutes per stage, peak memory, no-op, status, and what the models reach.

    python -m benchmarks.pipeline

Memory is the proportional set size (PSS) summed over dvc and all processes below it, sampled twice a second. Run it
on a quiet machine, from a tree whose changes are committed: the clone has what HEAD has.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from benchmarks.machine import machine

ROOT = Path(__file__).parents[1]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        minutes, pss = reproduce(clone)
        no_op = statistics.median(timed_no_op(clone) for _ in range(3))
        status = statistics.median(timed_status(clone) for _ in range(3))
        metrics = json.loads((clone / "artifacts/evaluate/metrics.json").read_text())
        speeds = {
            name: json.loads((clone / f"artifacts/{name}/speed.json").read_text()) for name in ("base", "finetune")
        }
    print(machine())
    print("\n| stage | minutes |\n|---|---|")
    for stage, value in minutes.items():
        print(f"| {stage} | {value:.2f} |")
    print(f"| all | {sum(minutes.values()):.2f} |")
    print(f"\npeak memory (summed PSS) {pss / 2**30:.2f} GiB; no-op `dvc repro` {no_op:.2f} s; "
          f"`python -m pipeline.status` {status:.2f} s")  # fmt: skip
    print(f"training tokens/s: base {speeds['base']['tokens_per_second']:,.0f}, "
          f"finetune {speeds['finetune']['tokens_per_second']:,.0f}")  # fmt: skip
    for name, figures in metrics.items():
        print(name, {key: round(value, 4) for key, value in figures.items()})
    base, tuned = (metrics[name]["response_loss"] for name in ("base", "finetuned"))
    print(f"fine-tuning lowers the response loss by {1 - tuned / base:.1%}")


def reproduce(clone: Path) -> tuple[dict[str, float], int]:
    """Run `dvc repro`: minutes per stage (dvc's own work counts to the stage before it), peak PSS in bytes."""
    process = subprocess.Popen([dvc(), "repro"], cwd=clone, stdout=subprocess.PIPE, text=True)
    peak = PeakMemory(process.pid)
    assert process.stdout is not None
    minutes: dict[str, float] = {}
    current, since = "", time.monotonic()
    for line in process.stdout:
        print(line, end="", file=sys.stderr)
        if found := re.match(r"Running stage '(\w+)'", line):
            now = time.monotonic()
            if current:
                minutes[current] = (now - since) / 60
                since = now
            current = found[1]
    if process.wait() != 0:
        sys.exit("dvc repro failed")
    minutes[current] = (time.monotonic() - since) / 60
    return minutes, peak.stop()


class PeakMemory:
    """Samples the summed PSS of a process and all below it until `stop`."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(0.5):
            try:
                family = [self._process, *self._process.children(recursive=True)]
                self._peak = max(self._peak, sum(map(pss, family)))
            except psutil.NoSuchProcess:
                continue


def pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def timed_no_op(clone: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run([dvc(), "repro"], cwd=clone, check=True, capture_output=True, text=True)
    assert "Running stage" not in done.stdout
    return time.perf_counter() - start


def timed_status(clone: Path) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipeline.status"], cwd=clone, check=True, capture_output=True)
    return time.perf_counter() - start


def dvc() -> str:
    return str(Path(sys.executable).parent / "dvc")


if __name__ == "__main__":
    main()
