"""Everything that the page shows, in one place: what evaluate measured, and what the stages before it left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from pipeline.dvcfile import read_stages
from pipeline.evaluate.measured import Measured
from pipeline.evaluate.report.costs import Hashes, StageCost, cost_so_far, stage_costs
from pipeline.evaluate.report.curves import Curves, read_curves
from pipeline.evaluate.report.data import Data
from pipeline.evaluate.report.headline import Line, headline
from pipeline.evaluate.report.lineage import machine, outputs, parameters
from pipeline.training.device import peak_memory_mb
from pipeline.work.root import work_root

STAGE = "evaluate"
SHOWN = 50
"""Samples in the page; all of them are in samples.jsonl."""


@dataclass(frozen=True)
class Content:
    """By stage where it is a dictionary; a part that is not there is empty."""

    written: float
    lines: list[Line]
    samples: list[dict[str, str]]
    samples_in_all: int
    data: Data
    curves: dict[str, Curves]
    costs: dict[str, StageCost | None]
    decoding: dict[str, float]
    """By model: tokens/s."""
    outputs: dict[str, Hashes]
    machine: dict[str, str]
    parameters: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float | None:
        """Of all stages together; None where one is not on record."""
        costs = list(self.costs.values())
        return None if None in costs else sum(cost.seconds for cost in costs if cost)


def gather(measured: Measured, data: Data, device: torch.device, log: Path | None) -> Content:
    """Collect what the present directory and the event logs hold; `log` is that of the run which evaluates."""
    now = time.time()
    stages = list(takewhile(lambda stage: stage.name != STAGE, read_stages().values()))
    made = outputs(stages)
    recorded = stage_costs(work_root() / "events", made)
    own = cost_so_far(log, now, peak_memory_mb(device)) if log else None
    curves = {stage.name: read_curves(Path("artifacts") / stage.name / "curves") for stage in stages}
    return Content(
        written=now,
        lines=headline(measured.metrics),
        samples=measured.samples[:SHOWN],
        samples_in_all=len(measured.samples),
        data=data,
        curves={stage: found for stage, found in curves.items() if found},
        costs={**{stage.name: recorded.get(stage.name) for stage in stages}, STAGE: own},
        decoding={model: figures["decode_tokens_per_second"] for model, figures in measured.speed.items()},
        outputs=made,
        machine=machine(device),
        parameters=parameters(),
    )
