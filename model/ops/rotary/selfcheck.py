"""A small input for the rotation's kernel, and torch's result in fp64."""

from functools import cache

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._selfcheck import Pair, constant, trusted
from model.ops.rotary.torch import forward

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.01, torch.float16: 0.002}
"""Largest difference, relative to the largest value, that rounding explains on a small input."""


@constant
def passes(device: str, dtype: torch.dtype, head_dim: int, half: int) -> bool:
    """Compare rotations there and back on a small input, once per process, device, dtype and size of a head."""
    return _passes(device, dtype, head_dim, half)


@cache
def _passes(device: str, dtype: torch.dtype, head_dim: int, half: int) -> bool:
    kernels = f"the rotation's kernel for {dtype} and {2 * half} of {head_dim} channels on {device}"
    return trusted(kernels, lambda: _compare(device, dtype, head_dim, half), TOLERANCE[dtype])


def _compare(device: str, dtype: torch.dtype, head_dim: int, half: int) -> Pair:
    from model.ops.rotary import triton

    make = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make).to(device)

    x, angles = normal(2, 37, 3, head_dim).to(dtype).transpose(1, 2), normal(2, 37, half)
    cos, sin = angles.cos(), angles.sin()
    with torch.no_grad(), full_precision(x):
        ours = [triton.forward(x, cos, sin, inverse) for inverse in (False, True)]
        theirs = [forward(x.double(), cos.double(), sin.double(), inverse) for inverse in (False, True)]
    return ours, theirs
