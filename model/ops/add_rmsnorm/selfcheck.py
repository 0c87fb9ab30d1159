"""A small input for the kernels of the sum and its RMSNorm, and torch's results in fp64."""

from functools import cache

import torch
from torch import Tensor

from model.ops._common import full_precision
from model.ops._selfcheck import Pair, constant, trusted
from model.ops.add_rmsnorm.torch import backward, forward

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.004}
"""Largest difference, relative to the largest value, that rounding explains."""

Dtypes = tuple[torch.dtype, torch.dtype, torch.dtype, torch.dtype]
"""Of the residual, what is added, the weight, and the norm."""


@constant
def passes(device: str, dtypes: Dtypes, d: int, multiplied: bool) -> bool:
    """Compare outputs and gradients on a small input, once per process, device, dtypes and whether what is added is
    multiplied.
    """
    return _passes(device, dtypes, d, 0.5 if multiplied else 1.0)


@cache
def _passes(device: str, dtypes: Dtypes, d: int, multiplier: float) -> bool:
    kernels = f"the kernels of sum and RMSNorm for {dtypes[0]} and rows of {d} on {device}"
    tolerance = max(TOLERANCE[dtype] for dtype in dtypes)
    return trusted(kernels, lambda: _compare(device, dtypes, d, multiplier), tolerance)


def _compare(device: str, dtypes: Dtypes, d: int, multiplier: float) -> Pair:
    from model.ops.add_rmsnorm import triton

    make = torch.Generator().manual_seed(0)

    def normal(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.randn(shape, generator=make, dtype=torch.float32).to(device, dtype)

    of_residual, of_mixed, of_weight, of_y = dtypes
    tile_rows = triton.Plan(10**9, d, d).options["R"]
    shape = (3 * tile_rows - tile_rows // 2, d)  # several tiles and programs, the last of them not full
    residual, mixed, weight = normal(of_residual, *shape), normal(of_mixed, *shape), normal(of_weight, d)
    grads = (normal(of_residual, *shape), normal(of_y, *shape))
    with torch.no_grad(), full_precision(residual):
        total, y = triton.forward(residual, mixed, weight, 1e-5, multiplier, of_y)
        ours = (total, y, *triton.backward(*grads, total, weight, 1e-5, multiplier, of_mixed))
        exact = (residual.double(), mixed.double(), weight.double())
        total, y = forward(*exact, 1e-5, multiplier, torch.float64)
        d_total, d_y = (grad.double() for grad in grads)
        theirs = (total, y, *backward(d_total, d_y, total, exact[2], 1e-5, multiplier, torch.float32))
    pairs = [pair for pair in zip(ours, theirs, strict=True) if pair[0].numel()]
    return [mine for mine, _ in pairs], [other for _, other in pairs]
