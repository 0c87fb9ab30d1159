"""An evaluation as files, as a tracked run, and as a table to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from pipeline.evaluate.measured import Figures, Measured
from pipeline.evaluate.report.content import gather
from pipeline.evaluate.report.data import read_data
from pipeline.evaluate.report.page import render
from pipeline.evaluate.report.tables import write_tables
from pipeline.tracking import Run
from pipeline.work import publish_directory

REPORT = "report.html"


def publish(out: Path, measured: Measured, clean: Path, tokens: Path, device: torch.device, run: Run) -> None:
    """Write `out` whole or not at all (layout: docs/artifacts.md), and tell the run."""
    for group in (measured.metrics, measured.speed):
        for name, figures in group.items():
            run.log_metrics({f"{name}/{figure}": value for figure, value in figures.items()})
    data = read_data(Path("data/ingested"), clean, tokens)
    with publish_directory(out) as building:
        _write_json(building / "metrics.json", measured.metrics)
        _write_json(building / "speed.json", measured.speed)
        with (building / "samples.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in measured.samples)
        write_tables(building / "plots", measured.metrics, data)
        (building / REPORT).write_text(render(gather(measured, data, device, run.log_path)), encoding="utf-8")
    for name in ("samples.jsonl", "plots", REPORT):
        run.log_artifact(out / name)


def table(metrics: Figures) -> str:
    """A line per figure, a column per model."""
    figures = sorted({figure for values in metrics.values() for figure in values})
    lines = ["".join(["held out".ljust(22), *(name.rjust(11) for name in metrics)])]
    for figure in figures:
        cells = (f"{values[figure]:.3f}" if figure in values else "-" for values in metrics.values())
        lines.append("".join([figure.ljust(22), *(cell.rjust(11) for cell in cells)]))
    return "\n".join(lines)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
