"""Loading and converting hold one copy of the weights and one shard, measured in a process of its own."""

from __future__ import annotations

import os
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
FREED_IS_GIVEN_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Else glibc takes tensors of less than 32 MB from its heap, whose holes a new one fits or not: of what had been freed
it kept 0 to 100 MB here, by chance. What is measured is what we hold."""

PREAMBLE = f"""
import sys, tempfile
import torch
import model.checkpoints.writing as writing
from model import HybridConfig, HybridLM, load_pretrained, save_pretrained
writing.write_safetensors.__defaults__ = ({SHARD},)
torch.set_num_threads(1)
def peak():
    # Not ru_maxrss, which a process inherits: below what pytest itself has come to nothing would be seen.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
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
        env=os.environ | FREED_IS_GIVEN_BACK,
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


@pytest.mark.parametrize(("format", "pattern"), [("state-spaces", "M" * 24), ("megatron", "MM*-" * 8)])
def test_converting_to_a_single_file(tmp_path: Path, format: str, pattern: str) -> None:
    """It is written tensor by tensor."""
    sizes = SIZES.replace("'MM*-' * 8", repr(pattern))
    source, target = str(tmp_path / "source"), str(tmp_path / "target")
    run(f"save_pretrained(HybridLM(HybridConfig({sizes})), {source!r})")
    whole, grown = run(
        f"before = peak()\nmodel = load_pretrained({source!r})\n"
        f"save_pretrained(model, {target!r}, format={format!r})\nprint(size(model), peak() - before)"
    )
    assert whole > 150_000_000
    assert grown <= whole + MARGIN


def test_loading_tensor_parallel_ranks(tmp_path: Path) -> None:
    """One rank's file is mapped at a time."""
    run(
        "from pathlib import Path\nfrom tests.model.checkpoints.test_megatron import write\n"
        f"write(Path({str(tmp_path)!r}), HybridLM(HybridConfig({SIZES}, n_groups=8)), 8)"
    )
    largest = max(file.stat().st_size for file in tmp_path.rglob("*.pt"))
    whole, grown = run(
        f"before = peak()\nmodel = load_pretrained({str(tmp_path)!r})\nprint(size(model), peak() - before)"
    )
    assert whole > 150_000_000
    assert grown <= whole + largest + MARGIN


def test_loading_pickled_shards(tmp_path: Path) -> None:
    """So is one shard's of an index."""
    sizes = SIZES.replace("'MM*-' * 8", "'M' * 24")
    run(
        f"model = HybridLM(HybridConfig({sizes}))\nsave_pretrained(model, {str(tmp_path)!r}, format='state-spaces')\n"
        f"import json, os\nos.chdir({str(tmp_path)!r})\n"
        "tensors = torch.load('pytorch_model.bin', weights_only=True)\nos.unlink('pytorch_model.bin')\n"
        "names, weight_map = list(tensors), {}\n"
        "for i in range(0, len(names), 30):\n"
        "    torch.save({name: tensors[name].clone() for name in names[i : i + 30]}, f'{i}.bin')\n"
        "    weight_map |= dict.fromkeys(names[i : i + 30], f'{i}.bin')\n"
        "with open('pytorch_model.bin.index.json', 'w') as file:\n    json.dump({'weight_map': weight_map}, file)\n"
    )
    largest = max(file.stat().st_size for file in tmp_path.glob("*.bin"))
    whole, grown = run(
        f"before = peak()\nmodel = load_pretrained({str(tmp_path)!r})\nprint(size(model), peak() - before)"
    )
    assert whole > 150_000_000
    assert grown <= whole + largest + MARGIN
    assert largest + MARGIN < whole / 1.5
