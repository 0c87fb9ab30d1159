"""A small input for the convolution's kernels, and torch's results in fp64."""

from functools import cache

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._selfcheck import Pair, trusted
from model.ops.causal_conv1d.torch import backward, forward

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.005}
"""Largest difference, relative to the largest value, that rounding explains on a small input."""


@torch.compiler.assume_constant_result
def passes(device: str, dtype: torch.dtype, width: int) -> bool:
    """Compare outputs and gradients on a small input, once per process, device, dtype and width."""
    return _passes(device, dtype, width)


@cache
def _passes(device: str, dtype: torch.dtype, width: int) -> bool:
    kernels = f"the convolution's kernels for {dtype} and {width} taps on {device}"
    return trusted(kernels, lambda: _compare(device, dtype, width), TOLERANCE[dtype])


def _compare(device: str, dtype: torch.dtype, width: int) -> Pair:
    from model.ops.causal_conv1d import triton

    make = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make).to(device, dtype)

    seqlen, channels = 75, 144  # several programs, the last of them not full
    x, grad = (normal(1, seqlen, channels) for _ in range(2))
    weight, bias = normal(channels, width), normal(channels)
    documents = (torch.arange(seqlen, device=device) > 40).to(torch.int32)[None]
    with torch.no_grad(), full_precision(x):
        y = triton.forward(x, weight, bias, None, documents, "silu")
        ours = (y, *triton.backward(grad, x, weight, bias, None, documents, "silu")[:3])
        x, grad, weight, bias = (tensor.double() for tensor in (x, grad, weight, bias))
        y = forward(x, weight, bias, documents, "silu")
        theirs = (y, *backward(grad, x, weight, bias, documents, "silu"))
    return ours, theirs
