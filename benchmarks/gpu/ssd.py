"""The SSD on a GPU: time, memory, and how much of the ideal traffic it reaches; mamba_ssm beside it if there is one.

    python -m benchmarks.gpu.ssd [--json FILE]

bf16, P 64 and N 128, with D, dt bias and softplus, random inputs. Ideal is the time to read every input and write every
output once, at the speed of a copy in the same run.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.ceilings import ceilings, keep, say, seconds
from model.ops.ssd import ssd

SHAPES = {
    "130M": (8, 2048, 24, 1, 256),
    "2.7B": (1, 8192, 80, 1, 256),
    "8B": (1, 8192, 128, 8, 128),
    "128 heads": (1, 16384, 128, 1, 256),
    "8B, 64k": (1, 65536, 128, 8, 128),
}
"""Batch, length, heads, groups, and the chunk of mamba_ssm."""

HEADDIM, DSTATE = 64, 128


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    found = ceilings()
    say(found)
    peers: dict[str, Callable[..., Tensor]] = {"ours": ours} | mamba_ssm()
    print(f"{'':21} forward ms   ideal  Mtok/s | with backward ms   ideal  GB more")
    found["rows"] = []
    for name, (batch, seqlen, heads, groups, chunk) in SHAPES.items():
        inputs = make(batch, seqlen, heads, groups)
        tokens = batch * seqlen
        forward = tokens * (4 * heads * HEADDIM + 4 * groups * DSTATE + 2 * heads) / found["copy"]
        backward = tokens * (6 * heads * HEADDIM + 8 * groups * DSTATE + 4 * heads) / found["copy"]
        for peer, function in peers.items():
            row = {"shape": name, "peer": peer} | measure(function, inputs, chunk)
            found["rows"].append(row)
            print(
                f"{name:10} {peer:10} {row['forward'] * 1e3:10.3f} {forward / row['forward']:7.0%} "
                f"{tokens / row['forward'] / 1e6:7.1f} | {row['both'] * 1e3:16.3f} "
                f"{(forward + backward) / row['both']:7.0%} {row['memory'] / 1e9:8.2f}",
                flush=True,
            )
    keep(arguments.json, found)


def make(batch: int, seqlen: int, heads: int, groups: int) -> dict[str, Tensor]:
    """Inputs with gradients."""
    torch.manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=dtype)

    inputs = {
        "x": normal(batch, seqlen, heads, HEADDIM),
        "dt": normal(batch, seqlen, heads),
        "A": -15 * torch.rand(heads, device="cuda") - 1,
        "B": normal(batch, seqlen, groups, DSTATE),
        "C": normal(batch, seqlen, groups, DSTATE),
        "D": normal(heads, dtype=torch.float32),
        "dt_bias": normal(heads, dtype=torch.float32) - 3,
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def measure(function: Callable[..., Tensor], inputs: dict[str, Tensor], chunk: int) -> dict[str, float]:
    """Seconds forward and with the backward; bytes at the peak above inputs and gradients."""
    grad = torch.randn_like(inputs["x"])
    tensors = list(inputs.values())

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(**inputs, chunk_size=chunk), tensors, grad)

    gradients = both()
    torch.cuda.synchronize()
    del gradients
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    size = sum(tensor.nbytes for tensor in both())
    memory = torch.cuda.max_memory_allocated() - before - size
    with torch.no_grad():
        forward = seconds(lambda: function(**inputs, chunk_size=chunk))
    return {"forward": forward, "both": seconds(both), "memory": float(memory)}


def ours(*, chunk_size: int, **inputs: Tensor) -> Tensor:
    """The operator as the model calls it."""
    y = ssd(**inputs, dt_softplus=True, chunk_size=chunk_size, backend="triton")
    assert isinstance(y, Tensor)
    return y


def mamba_ssm() -> dict[str, Any]:
    """Its kernels, where it is installed."""
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except ImportError:
        return {}
    return {"mamba_ssm": lambda **inputs: mamba_chunk_scan_combined(**inputs, dt_softplus=True)}


if __name__ == "__main__":
    main()
