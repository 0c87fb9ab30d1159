"""Loading and converting hold one copy of the weights and one shard, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SIZES = (
    "pattern='MM*-' * 8, vocab_size=4096, d_model=512, d_state=64, n_heads=8, n_kv_heads=8, d_ff=2048, chunk_size=128"
)
SHARD = 20_000_000
MARGIN = 60_000_000
"""What the allocator, the reading of headers and the tensor in hand may take besides."""

PREAMBLE = f"""
import resource, sys, tempfile
import torch
import model.checkpoints.writing as writing
from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
writing.write_safetensors.__defaults__ = ({SHARD},)
torch.set_num_threads(1)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def size(model):
    return sum(p.numel() * p.element_size() for p in model.parameters())
with tempfile.TemporaryDirectory() as folder:  # what is imported on the way is no weight
    save_pretrained(HybridLM(HybridConfig.preset("tiny")), folder)
    load_pretrained(folder)
"""


def run(code: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sharded")
    run(f"save_pretrained(HybridLM(HybridConfig({SIZES})), {str(folder)!r}, format='hf-nemotron-h')")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 5
    return folder


@pytest.mark.parametrize(("dtype", "share"), [("None", 1.0), ("torch.bfloat16", 0.5)])
def test_loading(sharded: Path, dtype: str, share: float) -> None:
    whole, grown = run(
        f"before = peak()\nmodel = load_pretrained({str(sharded)!r}, dtype={dtype})\n"
        f"print(int(size(model) / {share}), peak() - before)"
    )
    assert whole > 150_000_000
    assert grown <= share * whole * 1.02 + SHARD + MARGIN


@pytest.mark.parametrize("format", ["native", "hf-nemotron-h"])
def test_converting(sharded: Path, tmp_path: Path, format: str) -> None:
    whole, grown = run(
        f"before = peak()\nmodel = load_pretrained({str(sharded)!r})\n"
        f"save_pretrained(model, {str(tmp_path)!r}, format={format!r})\nprint(size(model), peak() - before)"
    )
    assert grown <= whole + SHARD + MARGIN
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 5
