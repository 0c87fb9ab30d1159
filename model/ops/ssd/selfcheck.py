"""A small input for the SSD's kernels, and torch's results in fp64."""

from functools import cache

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._selfcheck import Pair, trusted
from model.ops.ssd.torch import backward, forward

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
"""Largest difference, relative to the largest value, that rounding explains on a small input."""


@torch.compiler.assume_constant_result
def passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    """Compare outputs and gradients on a small input, once per process, device, dtype and sizes of a state."""
    return _passes(device, dtype, headdim, dstate)


@cache
def _passes(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> bool:
    kernels = f"the SSD's kernels for {dtype} and states of {headdim} x {dstate} on {device}"
    return trusted(kernels, lambda: _compare(device, dtype, headdim, dstate), TOLERANCE[dtype])


def _compare(device: str, dtype: torch.dtype, headdim: int, dstate: int) -> Pair:
    from model.ops.ssd import triton

    make = torch.Generator().manual_seed(0)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float32).to(device, dtype)

    seqlen, heads = 600, 2  # several segments of several chunks, the last of them not full
    A, D, bias = -normal(heads, dtype=torch.float32).abs(), *(normal(heads, dtype=torch.float32) for _ in range(2))
    x, grad, dt = normal(1, seqlen, heads, headdim), normal(1, seqlen, heads, headdim), normal(1, seqlen, heads)
    B, C = (normal(1, seqlen, 1, dstate) for _ in range(2))
    documents = (torch.arange(seqlen, device=device) > 290).to(torch.int32)[None]
    options = (True, (0.0, float("inf")))
    with torch.no_grad(), full_precision(x):
        inputs = (x, dt, A, B, C, D, bias)
        y, final, starts, decays = triton.forward(*inputs, None, documents, *options)
        ours = (y, final, *triton.backward(grad, final, *inputs, documents, starts, decays, *options))
        x, dt, A, B, C, D, bias = (tensor.double() for tensor in inputs)
        y, state, states = forward(x, dt, A, B, C, D, bias, None, documents, *options, 64)
        grads = (grad.double(), final.double())
        theirs = (y, state, *backward(*grads, x, dt, A, B, C, D, bias, documents, states, *options, 64))
    return ours, theirs
