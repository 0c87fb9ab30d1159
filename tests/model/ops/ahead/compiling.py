"""One kernel, compiled for GPUs that are not here, and ptxas's report: what it spills and shares."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction

from model.ops._launch import Launched

MOST_SHARED = {80: 163 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that one program may have, by architecture."""

NAN_STAYS = ("max.NaN.f32", "min.NaN.f32")
"""Limits that pass on what is no number: others take the limit instead, unlike numpy's, which interprets."""

NOTHING = dict.fromkeys(MOST_SHARED, 0)


@dataclass(frozen=True)
class Kernel:
    """A kernel as its operator launches it, and what it may cost.

    Attributes:
        function: the kernel.
        constants: its constexpr arguments; of others, which it does not have, nothing is made.
        hopper: constants that are others on sm_90.
        architectures: that it is made for.
        types: Triton's names for the types of its other arguments ("*bf16", "i32"); those not named are `tensors`.
        tensors: the type of the arguments that `types` does not name.
        options: of the launch: num_warps, num_stages.
        divisible: arguments that are no pointers, and multiples of 16 as the widths of the presets are.
        spilled: bytes per thread that may go to local memory, by architecture.
        instructions: that its PTX must have, where the interpreter does not show what a GPU does.
        label: what tells it from the same kernel with other constants.
    """

    function: Launched
    constants: dict[str, Any]
    types: dict[str, str]
    tensors: str = "*fp32"
    options: dict[str, int] = field(default_factory=dict)
    divisible: tuple[str, ...] = ()
    spilled: dict[int, int] = field(default_factory=NOTHING.copy)
    hopper: dict[str, Any] = field(default_factory=dict)
    architectures: tuple[int, ...] = tuple(MOST_SHARED)
    instructions: tuple[str, ...] = ()
    label: str = ""


def within_limits(kernel: Kernel, architecture: int) -> bool:
    """Compile; print what it takes."""
    types = _signature(kernel)
    given = kernel.constants | (kernel.hopper if architecture == 90 else {})
    constants = {name: value for name, value in given.items() if name in types}
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(types.items())
        if kind.startswith("*") or name in kernel.divisible
    }
    made_of = GluonASTSource if isinstance(kernel.function.jit, GluonJITFunction) else ASTSource
    source = made_of(kernel.function.jit, types, constexprs=constants, attrs=aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=kernel.options)
    shared, spilled = compiled.metadata.shared, _spilled(compiled.asm["ptx"], architecture)
    passed = shared <= MOST_SHARED[architecture] and spilled <= kernel.spilled[architecture]
    lacks = [instruction for instruction in kernel.instructions if instruction not in compiled.asm["ptx"]]
    name = f"{kernel.function.jit.__name__} {kernel.label}".strip()
    verdict = ("" if passed else "  TOO MUCH") + (f"  LACKS {', '.join(lacks)}" if lacks else "")
    print(f"{name:32} sm_{architecture:<3} {shared:7} B shared, {spilled:5} B spilled{verdict}", flush=True)
    return passed and not lacks


def _signature(kernel: Kernel) -> dict[str, str]:
    """Triton's name for the type of each argument."""
    return {
        parameter.name: "constexpr" if parameter.is_constexpr else kernel.types.get(parameter.name, kernel.tensors)
        for parameter in kernel.function.jit.params
    }


def _spilled(ptx: str, architecture: int) -> int:
    """Bytes per thread, as ptxas tells."""
    assembler = triton.knobs.nvidia.ptxas_blackwell if architecture >= 100 else triton.knobs.nvidia.ptxas
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        suffix = "a" if architecture >= 90 else ""
        command = [assembler.path, "-v", f"--gpu-name=sm_{architecture}{suffix}", str(source), "-o", "/dev/null"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return max(int(count) for count in re.findall(r"(\d+) bytes spill stores", report))
