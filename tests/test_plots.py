"""Every plot of dvc.yaml over a table of the data stages finds the table, its columns and a row, which DVC needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

from pipeline.shards import Local
from pipeline.work import WorkFolder
from tests.pipeline.shards.stages import run_stages, write_inputs

STAGES = {"data/clean": "preprocess", "data/tokens": "tokenize"}
"""Which stage makes which folder."""


def _prompts(root: Path) -> None:
    """Conversations alone, of which none is dropped or a duplicate."""
    (root / "input").mkdir()
    lines = (json.dumps({"prompt": f"{number} {'x' * number}", "completion": "yes"}) for number in range(50))
    (root / "input" / "a.jsonl").write_text("\n".join(lines))


@pytest.mark.parametrize("write", [write_inputs, _prompts])
def test_tables_of_the_data_stages_have_what_is_plotted(tmp_path: Path, write: Callable[[Path], object]) -> None:
    write(tmp_path)
    run_stages(tmp_path, Local(1))
    plots = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text())["plots"]
    tables = {name: plot for entry in plots for name, plot in entry.items() if name.startswith("data/")}
    assert {Path(name).stem for name in tables} == {"dropped", "clusters", "languages", "sources"}
    for name, plot in tables.items():
        folder, inside = "/".join(Path(name).parts[:2]), Path(*Path(name).parts[2:])
        table = pl.read_csv(WorkFolder(tmp_path / "work" / STAGES[folder]).out / inside)
        assert {plot["x"], plot["y"]} <= set(table.columns), name
        assert table.height, name
