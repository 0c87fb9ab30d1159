"""The machine is watched beside a stage, and a fault of the watch is no fault of the stage."""

from __future__ import annotations

import threading

import pytest

from pipeline.tracking import system
from pipeline.tracking.system import SystemMetrics


def test_there_is_a_sample_every_while_and_one_at_the_end(monkeypatch):
    monkeypatch.setattr(system, "SECONDS_BETWEEN_SAMPLES", 0.01)
    samples: list[dict[str, float]] = []
    three = threading.Event()

    def record(sample: dict[str, float]) -> None:
        samples.append(sample)
        if len(samples) == 3:
            three.set()

    with SystemMetrics(record):
        assert three.wait(timeout=30)
        monkeypatch.setattr(system, "SECONDS_BETWEEN_SAMPLES", 1000)
    assert len(samples) >= 3
    assert all(0 <= sample["system/cpu_utilization_percentage"] <= 100 for sample in samples)
    assert all(sample["system/process_memory_megabytes"] > 10 for sample in samples)


@pytest.mark.parametrize("seconds", [0.01, 1000])
def test_a_full_disk_ends_the_watch_only(monkeypatch, seconds):
    monkeypatch.setattr(system, "SECONDS_BETWEEN_SAMPLES", seconds)
    tried = threading.Event()

    def record(sample: dict[str, float]) -> None:
        tried.set()
        raise OSError(28, "No space left on device")

    with SystemMetrics(record):
        pass
    assert tried.is_set()
