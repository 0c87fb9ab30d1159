"""C kernels for the CPU: compiled for this processor when first used, kept in the user's cache; torch is the fallback.

Plain C behind ctypes: a file compiles in half a second, where torch's headers take a minute and need ninja, and a call
costs less than one through torch's dispatcher. Its OpenMP is torch's own (one libgomp per process).
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

HEADER = Path(__file__).with_name("_native.h")
FLAGS = ("-std=c11", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC")
SECONDS_TO_COMPILE = 60


StepBackend = Literal["auto", "torch", "native"]

SIZE, POINTER, FLOAT, INT = ctypes.c_longlong, ctypes.c_void_p, ctypes.c_float, ctypes.c_int
"""What C's arguments are made of."""

_PLAIN = (Tensor, torch.nn.Parameter)
"""Types whose data lie at their address; others may be distributed, fake or traced."""

TOLERANCE = 1e-4
"""Largest difference from torch, relative to the largest value, that rounding explains on a small input."""


def chosen(backend: str, tensors: Sequence[Tensor | None], works: Callable[[], bool]) -> bool:
    """Whether `backend` means the C kernel for these tensors.

    Args:
        works: whether there is one that does what it should.

    Raises:
        ValueError: no such backend, or "native" is asked for and cannot be had.
    """
    if backend == "torch":
        return False
    possible = _takes(tensors) and works()
    if backend == "native" and not possible:
        raise ValueError("backend is 'native': it needs a C compiler, and fp32 tensors on the CPU without gradients")
    if backend not in ("auto", "native"):
        raise ValueError(f"backend is {backend!r}: choose 'auto', 'torch' or 'native'")
    return possible


def _takes(tensors: Sequence[Tensor | None]) -> bool:
    """In few and cheap questions: a decoding step asks this some twenty times."""
    gradients = torch.is_grad_enabled()
    for tensor in tensors:
        if tensor is not None and not (
            tensor.dtype is torch.float32
            and tensor.is_cpu
            and type(tensor) in _PLAIN
            and not (gradients and tensor.requires_grad)
        ):
            return False
    return not torch.compiler.is_compiling()


def load(source: Path, name: str, arguments: Sequence[type]) -> Callable[..., None] | None:
    """The function `name` of a C file; None where there is no compiler, or, with a warning, where it fails."""
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if not compiler or shutil.which(compiler[0]) is None:
        return None
    try:
        function = getattr(_open(source, compiler), name)
    except (OSError, AttributeError, RuntimeError, subprocess.SubprocessError) as error:
        _warn(f"{source.name} could not be compiled ({getattr(error, 'stderr', '') or error})")
        return None
    function.argtypes, function.restype = arguments, None
    return function


def small_inputs(*shapes: tuple[int, ...]) -> list[Tensor]:
    """Random fp32 tensors on the CPU, whatever torch's defaults are, to try a kernel on."""
    make = torch.Generator("cpu").manual_seed(0)
    return [torch.randn(shape, generator=make, dtype=torch.float32, device="cpu") for shape in shapes]


def agree(name: str, ours: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether a C kernel's results are torch's; warns where they are not (a miscompiled kernel must not be used)."""
    good = all(
        bool((mine - theirs).abs().max() <= TOLERANCE * theirs.abs().max())
        for mine, theirs in zip(ours, expected, strict=True)
    )
    if not good:
        _warn(f"the compiled {name} does not compute what torch computes")
    return good


def rows(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where what belongs to one index of the first dimension does not lie together."""
    if tensor.is_contiguous():
        return tensor
    together = 1
    for size, stride in zip(tensor.shape[:0:-1], tensor.stride()[:0:-1], strict=True):
        if stride != together and size > 1:
            return tensor.contiguous()
        together *= size
    return tensor


def address(tensor: Tensor | None) -> int | None:
    """What C gets; null for None."""
    return None if tensor is None else tensor.data_ptr()


def _warn(what: str) -> None:
    warnings.warn(f"{what}; the slower torch path is used", stacklevel=3)


def _open(source: Path, compiler: list[str]) -> ctypes.CDLL:
    library = _compiled(source, compiler)
    try:
        return ctypes.CDLL(str(library))
    except OSError:  # damaged: once more
        library.unlink()
        return ctypes.CDLL(str(_compiled(source, compiler)))


def _compiled(source: Path, compiler: list[str]) -> Path:
    text = HEADER.read_bytes() + source.read_bytes()
    key = hashlib.sha256(b"\0".join([text, " ".join([*compiler, *FLAGS]).encode(), _processor()])).hexdigest()
    library = _cache() / f"{source.parent.name}-{source.stem}-{key[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            draft = Path(folder, library.name)
            command = [*compiler, *FLAGS, f"-I{HEADER.parent}", "-o", str(draft), str(source), "-lm"]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS_TO_COMPILE)
            os.replace(draft, library)
    return library


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mamba2-pipeline")


def _processor() -> bytes:
    """What `-march=native` goes by: a cache may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(line for line in lines if line.startswith((b"model name", b"flags", b"Features", b"CPU ")))
