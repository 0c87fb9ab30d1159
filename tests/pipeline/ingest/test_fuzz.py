"""Damaged files at random: never a crash, never a hang, and nothing is lost without a word."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_random_damage(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.pipeline.ingest.fuzz", str(tmp_path / "work"), "0", "25"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-100:] + done.stderr[-3000:]
