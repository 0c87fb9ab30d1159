"""A small input for the kernels of the gated RMSNorm, and torch's results in fp64."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._selfcheck import Pair, constant, trusted
from model.ops.gated_rmsnorm.torch import backward, forward

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.004}
"""Largest difference, relative to the largest value, that rounding explains."""

Dtypes = tuple[torch.dtype, torch.dtype, torch.dtype | None, torch.dtype]
"""Of x, the weight, the gate if there is one, and the result."""


@constant
def passes(device: str, dtypes: Dtypes, group_size: int, norm_before_gate: bool) -> bool:
    """Compare output and gradients on a small input, once per process, device, dtypes and options."""
    return _passes(device, dtypes, group_size, norm_before_gate)


@cache
def _passes(device: str, dtypes: Dtypes, group_size: int, norm_before_gate: bool) -> bool:
    from model.ops.gated_rmsnorm import triton

    kernels = f"the gated RMSNorm's kernels for {dtypes[0]} and groups of {group_size} on {device}"
    tolerance = max(TOLERANCE[dtype] for dtype in dtypes if dtype is not None)
    tile = triton.Plan(10**9, 2 * group_size, group_size).options["R"]
    rows = 3 * tile - tile // 2 + 1  # several tiles and programs, the last of them not full, in the backward either
    options = (rows, device, dtypes, group_size, norm_before_gate)
    return trusted(kernels, lambda: compare(triton.forward, triton.backward, *options), tolerance)


def compare(
    ahead: Callable[..., Tensor],
    back: Callable[..., tuple[Tensor, ...]],
    rows: int,
    device: str,
    dtypes: Dtypes,
    group_size: int,
    norm_before_gate: bool,
) -> Pair:
    """What a path's `forward` and `backward` make of a small input, and what torch makes of it."""
    make = torch.Generator().manual_seed(0)

    def normal(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float32).to(device, dtype)

    of_x, of_weight, of_gate, of_y = dtypes
    shape = (rows, 2 * group_size)
    x, weight, grad = normal(of_x, *shape), normal(of_weight, shape[1]), normal(of_y, *shape)
    gate = None if of_gate is None else normal(of_gate, *shape)
    options = (1e-5, group_size, norm_before_gate)
    with torch.no_grad(), full_precision(x):
        y = ahead(x, weight, gate, *options, of_y)
        ours = (y, *back(grad, x, weight, gate, *options))
        exact = (x.double(), weight.double(), None if gate is None else gate.double(), *options)
        theirs = (forward(*exact, torch.float64), *backward(grad.double(), *exact))
    return [tensor for tensor in ours if tensor.numel()], [tensor for tensor in theirs if tensor.numel()]
