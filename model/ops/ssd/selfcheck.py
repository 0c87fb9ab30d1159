"""Whether the compiled kernels do what torch does: compilers have been seen to be wrong, and a wrong scan trains."""

import warnings
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from model.ops.ssd.torch import backward, forward

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest difference, relative to the largest value, that rounding explains on a small input."""


@torch.compiler.assume_constant_result
def passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    """Compare outputs and gradients on a small input, once per process, device, dtype and sizes of a state."""
    return _passes(device, dtype, headdim, dstate)


@cache
def _passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    from model.ops.ssd import triton

    make = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float32).to(device, dtype)

    seqlen, heads = 150, 2  # three chunks, the last of them not full
    A, D, bias = -normal(heads, dtype=torch.float32).abs(), *(normal(heads, dtype=torch.float32) for _ in range(2))
    x, grad, dt = normal(1, seqlen, heads, headdim), normal(1, seqlen, heads, headdim), normal(1, seqlen, heads)
    B, C = (normal(1, seqlen, 1, dstate) for _ in range(2))
    options = (True, (0.0, float("inf")))
    with torch.no_grad():
        y, final, starts, decays = triton.forward(x, dt, A, B, C, D, bias, None, None, *options)
        ours = (y, final, *triton.backward(grad, final, x, dt, A, B, C, D, bias, None, starts, decays, *options))
        y, state, states = forward(x, dt, A, B, C, D, bias, None, None, *options, 64)
        theirs = (y, state, *backward(grad, final, x, dt, A, B, C, D, bias, None, states, *options, 64))
    good = _agree(ours, theirs, TOLERANCE[dtype])
    if not good:
        warnings.warn(
            f"the compiled SSD kernels on {device} do not compute what torch does, in {dtype} and with states of "
            f"{headdim} x {dstate}; the slower torch path is used",
            stacklevel=2,
        )
    return good


def _agree(ours: Sequence[Tensor], theirs: Sequence[Tensor], tolerance: float) -> bool:
    return all(
        bool((mine.float() - other.float()).abs().max() <= tolerance * other.float().abs().max())
        for mine, other in zip(ours, theirs, strict=True)
    )
