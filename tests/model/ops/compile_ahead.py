"""Compile the SSD's kernels for GPUs that are not here, and look at ptxas's report: what they spill and share.

python -m tests.model.ops.compile_ahead

Not for the process of the other tests: an interpreted kernel cannot be compiled.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from model.ops.ssd.triton import HEADS, Plan
from model.ops.ssd.triton.decays import decays_kernel, step_gradients_kernel
from model.ops.ssd.triton.gradients import read_gradients_kernel, write_gradients_kernel
from model.ops.ssd.triton.scan import scan_kernel
from model.ops.ssd.triton.states import states_kernel

MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that one program may have."""

MOST_SPILLED = {80: 11_000, 90: 640, 100: 1_200}
"""Bytes per thread that go to local memory: what they do today (docs/kernels.md), so that no change makes it worse."""

DTYPE, HEADDIM, DSTATE = torch.bfloat16, 64, 128
KERNELS = {
    decays_kernel: {"H": HEADS, "SOFTPLUS": True, "BIAS": True},
    states_kernel: {"REVERSE": False, "STORE": True, "DOCUMENTS": True, "START": True},
    scan_kernel: {"SKIP": True, "DOCUMENTS": True, "START": True},
    read_gradients_kernel: {"DOCUMENTS": True},
    write_gradients_kernel: {"SKIP": True, "DOCUMENTS": True},
    step_gradients_kernel: {"H": HEADS, "SOFTPLUS": True, "BIAS": True},
}
NUMBERS = {"plane": "i64", "dt_min": "fp32", "dt_max": "fp32"}
SIZES = {"seqlen", "nheads", "ngroups", "nsegments", "chunks_of_segment", "nchunks", "nsplits"}
INPUTS = {"x", "dy", "dt", "B", "C", "y", "dx", "ddt", "dB", "dC", "states", "d_states"}
"""Tensors in bf16; the others are fp32."""


def signature(kernel: triton.JITFunction) -> dict[str, str]:
    """Triton's name for the type of each argument."""
    found = {}
    for parameter in kernel.params:
        name = parameter.name
        if parameter.is_constexpr:
            found[name] = "constexpr"
        elif name in SIZES:
            found[name] = "i32"
        elif name in NUMBERS:
            found[name] = NUMBERS[name]
        elif name == "seq_idx":
            found[name] = "*i32"
        else:
            found[name] = "*bf16" if name in INPUTS else "*fp32"
    return found


def spilled(ptx: str, architecture: int) -> int:
    """Bytes per thread, as ptxas tells."""
    assembler = triton.knobs.nvidia.ptxas_blackwell if architecture >= 100 else triton.knobs.nvidia.ptxas
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        suffix = "a" if architecture >= 90 else ""
        command = [assembler.path, "-v", f"--gpu-name=sm_{architecture}{suffix}", str(source), "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return max(int(count) for count in re.findall(r"(\d+) bytes spill stores", report))


def main() -> None:
    """Print a table; exit with an error where a limit is passed."""
    bad = 0
    plan = Plan(torch.empty(1, 4096, 32, HEADDIM, dtype=DTYPE), torch.empty(1, 4096, 1, DSTATE, dtype=DTYPE))
    options = {"num_stages": plan.dots["num_stages"], "num_warps": plan.warps}
    for kernel, chosen in KERNELS.items():
        types = signature(kernel)
        constants = {name: value for name, value in (plan.dots | chosen).items() if name in types}
        aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
        for architecture, most in MOST_SHARED.items():
            source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
            compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
            shared, spill = compiled.metadata.shared, spilled(compiled.asm["ptx"], architecture)
            passed = shared <= most and spill <= MOST_SPILLED[architecture]
            bad += not passed
            verdict = "" if passed else "  TOO MUCH"
            print(
                f"{kernel.__name__:24} sm_{architecture}: {shared:7} B shared, {spill:4} B spilled{verdict}", flush=True
            )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
