"""The SSD on a GPU: time, memory, and how much of the ideal traffic it reaches; beside it mamba_ssm and fla, if there.

    python -m benchmarks.gpu.ssd [--shapes 8B "8B, 64k"] [--json FILE]

bf16, P 64 and N 128, with D, dt bias and softplus, random inputs; peers shape by shape. Ideal is the time to read every
input and write every output once, at the speed of a copy in the same run. `device` is the device's own time, with cold
caches; the others are as called, where short kernels wait for Python and autograd. FLOP are those of mamba_ssm's chunk,
4HPN + QHP + 2QNG a token, and twice that for the backward.

fla's simple_gla has neither groups nor step sizes: what is counted for it includes B and C repeated for all heads, and
x times the step sizes.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.ceilings import ceilings, device_seconds, keep, say, seconds
from model.ops.ssd import ssd

SHAPES = {
    "130M": (8, 2048, 24, 1, 256),
    "2.7B": (1, 8192, 80, 1, 256),
    "8B": (1, 8192, 128, 8, 128),
    "8B, 64k": (1, 65536, 128, 8, 128),
    "1k": (1, 1024, 128, 1, 256),
    "16k": (1, 16384, 128, 1, 256),
    "256k": (1, 262144, 128, 1, 256),
}
"""Batch, length, heads, groups, and the chunk of mamba_ssm; the last three those of a published fused forward."""

HEADDIM, DSTATE = 64, 128


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    found = ceilings()
    say(found)
    peers: dict[str, Callable[..., Tensor]] = {"ours": ours} | mamba_ssm() | fla()
    columns = "ms  device  ideal  GB/s  TFLOP/s"
    print(f"{'':19} forward {columns}  Mtok/s | with backward {columns}  GB more")
    found["rows"] = []
    for name in arguments.shapes:
        batch, seqlen, heads, groups, chunk = SHAPES[name]
        inputs, tokens = make(batch, seqlen, heads, groups), batch * seqlen
        moved = tokens * (4 * heads * HEADDIM + 4 * groups * DSTATE + 2 * heads)
        moved_back = tokens * (6 * heads * HEADDIM + 8 * groups * DSTATE + 4 * heads)
        flop = tokens * (4 * heads * HEADDIM * DSTATE + chunk * heads * HEADDIM + 2 * chunk * groups * DSTATE)
        for peer, function in peers.items():
            try:
                row = {"shape": name, "peer": peer} | measure(function, inputs, chunk)
            except RuntimeError as error:
                if function is ours or isinstance(error, torch.OutOfMemoryError):
                    raise
                reason = str(error).partition("\n")[0]  # fla: a compiler that it knows to be wrong
                print(f"{name:8} {peer:10} refuses: {reason}", flush=True)
                continue
            row |= rates("forward", row["forward"], moved, flop, found["copy"])
            row |= rates("both", row["both"], moved + moved_back, 3 * flop, found["copy"])
            row["forward_tokens"] = tokens / row["forward"]
            found["rows"].append(row)
            forward, both = (described(row, of) for of in ("forward", "both"))
            print(
                f"{name:8} {peer:10} {forward} {row['forward_tokens'] / 1e6:7.1f} | {both} {row['memory'] / 1e9:8.2f}",
                flush=True,
            )
    keep(arguments.json, found)


def rates(of: str, took: float, moved: float, flop: float, copy: float) -> dict[str, float]:
    """Of so many seconds: the share of the ideal, and what that is a second."""
    return {f"{of}_ideal": moved / copy / took, f"{of}_bytes": moved / took, f"{of}_flop": flop / took}


def described(row: dict[str, float], of: str) -> str:
    """Its part of a line."""
    return (
        f"{row[of] * 1e3:10.3f} {row[f'{of}_device'] * 1e3:7.3f} {row[f'{of}_ideal']:6.0%} "
        f"{row[f'{of}_bytes'] / 1e9:5.0f} {row[f'{of}_flop'] / 1e12:8.1f}"
    )


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


def measure(function: Callable[..., Tensor], inputs: dict[str, Tensor], chunk: int) -> dict[str, Any]:
    """Seconds forward and with the backward, as called and by the device; peak bytes less inputs and gradients."""
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
    found = {"memory": float(memory), "both": seconds(both), "both_device": device_seconds(both)}
    with torch.no_grad():
        for key, clock in (("forward", seconds), ("forward_device", device_seconds)):
            found[key] = clock(lambda: function(**inputs, chunk_size=chunk))
    return found


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


def fla() -> dict[str, Any]:
    """Its nearest operator, where it is installed."""
    try:
        from fla.ops.simple_gla import chunk_simple_gla
    except ImportError:
        return {}

    def theirs(
        *, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, dt_bias: Tensor, **_: Any
    ) -> Tensor:
        step = torch.nn.functional.softplus(dt.float() + dt_bias)
        key, query = (maps.repeat_interleave(x.shape[2] // maps.shape[2], 2) for maps in (B, C))
        y, _ = chunk_simple_gla(query, key, (x * step.unsqueeze(-1)).to(x.dtype), step * A, scale=1.0)
        return y + (x * D.unsqueeze(-1)).to(x.dtype)

    return {"fla": theirs}


if __name__ == "__main__":
    main()
