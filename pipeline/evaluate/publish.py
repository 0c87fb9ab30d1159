"""The figures of an evaluation as files, as a tracked run, and as a table to read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from pipeline.shards import publish_directory
from pipeline.tracking import Run

PLOTTED = ("bits_per_byte", "response_loss", "chrf")

Figures = dict[str, dict[str, float]]
"""By model (or baseline), then by figure."""


def publish(target: Path, metrics: Figures, speed: Figures, samples: list[dict[str, str]], run: Run) -> None:
    """Write `target` whole or not at all (layout: docs/artifacts.md), and tell the run."""
    with publish_directory(target) as building:
        _write_json(building / "metrics.json", metrics)
        _write_json(building / "speed.json", speed)
        with (building / "samples.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        (building / "plots").mkdir()
        for figure in PLOTTED:
            _write_bars(building / "plots" / f"{figure}.csv", figure, metrics)
    for group in (metrics, speed):
        for name, figures in group.items():
            run.log_metrics({f"{name}/{figure}": value for figure, value in figures.items()})
    run.log_artifact(target / "samples.jsonl")
    run.log_artifact(target / "plots")


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


def _write_bars(path: Path, figure: str, metrics: Figures) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", figure])
        writer.writerows((name, figures[figure]) for name, figures in metrics.items() if figure in figures)
