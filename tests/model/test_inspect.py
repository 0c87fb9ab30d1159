"""python -m model.inspect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from model import PRESETS, HybridLM, save_pretrained


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "model.inspect", *arguments],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def test_the_largest_is_described_without_its_memory() -> None:
    done = run("mamba2-hybrid-8b", "--context", "8192", "--tensor-parallel", "8", "--data-parallel", "2")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith(PRESETS["mamba2-hybrid-8b"].pattern)
    assert any(line.split() == ["parameters", "8,654,517,248"] for line in lines)
    assert any("8 tensor-parallel x 2 data-parallel ranks" in line for line in lines)
    # 16 bytes per parameter: 8.65e9 / 8 ranks x 4 bytes = 4.03 GiB of weights
    (fp32,) = (line.split() for line in lines if line.startswith("  fp32") and len(line.split()) == 8)
    assert fp32[1:4] == ["4.03", "4.03", "4.03"]
    # keys and values: 4 layers x 2 x 8192 positions x 8 heads x 128 channels x 2 bytes
    (bf16,) = (line.split() for line in lines if line.startswith("  bf16") and len(line.split()) == 4)
    assert float(bf16[3]) == pytest.approx(4 * 2 * 8192 * 8 * 128 * 2 / 2**30, abs=1e-3)


def test_a_directory_and_mistakes(tmp_path: Path) -> None:
    save_pretrained(HybridLM(PRESETS["tiny"]), tmp_path, format="hf-nemotron-h")
    assert PRESETS["tiny"].pattern in run(str(tmp_path)).stdout
    for arguments, words in (
        (("mamba2-9b",), "mamba2-9b is neither a directory nor one of mamba2-130m, "),
        (("tiny", "--tensor-parallel", "2"), "n_groups is 1"),
        (("tiny", "--batch", "0"), "--batch must be at least 1"),
        (("tiny", "--batch", str(2**31), "--context", str(2**31)), "--batch times --context must be at most"),
    ):
        done = run(*arguments)
        assert done.returncode != 0
        assert words in done.stderr
        assert "Traceback" not in done.stderr
