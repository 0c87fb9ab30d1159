"""How busy the machine is, sampled beside a stage; the names are those of MLflow's own system metrics."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

import psutil
import pynvml

SECONDS_BETWEEN_SAMPLES = 10.0


class SystemMetrics:
    """Hands a sample to `record` every ten seconds, and one at the end; use as a context manager."""

    def __init__(self, record: Callable[[dict[str, float]], None]) -> None:
        self._record = record
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="system-metrics", daemon=True)

    def __enter__(self) -> SystemMetrics:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def _sample(self) -> None:
        process = psutil.Process()
        psutil.cpu_percent()  # the load is that since the call before
        ended = False
        while not ended:
            ended = self._ended.wait(SECONDS_BETWEEN_SAMPLES)
            try:
                self._record({f"system/{name}": value for name, value in {**_machine(process), **_gpus()}.items()})
            except (OSError, RuntimeError, psutil.Error):  # a full disk, say; the stage finds out by itself
                return


def _machine(process: psutil.Process) -> dict[str, float]:
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(os.getcwd())
    return {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": round(memory.used / 1e6, 1),
        "system_memory_usage_percentage": memory.percent,
        "process_memory_megabytes": round(process.memory_info().rss / 1e6, 1),
        "disk_usage_percentage": disk.percent,
        "disk_available_megabytes": round(disk.free / 1e6, 1),
    }


def _gpus() -> dict[str, float]:
    """Of the GPUs that this process computes on."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {}
    found = {}
    for index in range(torch.cuda.device_count()):
        if torch.cuda.memory_reserved(index):
            free, total = torch.cuda.mem_get_info(index)
            found[f"gpu_{index}_memory_usage_megabytes"] = round((total - free) / 1e6, 1)
            found[f"gpu_{index}_memory_usage_percentage"] = round((total - free) / total * 100, 1)
            with suppress(pynvml.NVMLError, RuntimeError):  # not every virtual GPU tells
                found[f"gpu_{index}_utilization_percentage"] = float(torch.cuda.utilization(index))
    return found
