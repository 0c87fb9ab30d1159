"""Norms of one position: the residual stream's, with what the layer before made added on the way, and the gated one."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.layers.norm import GatedRMSNorm, RMSNorm
from model.ops._launch import Launched, power_of_2


@Launched
@triton.jit
def add_norm_kernel(
    residual, mixed, weight, y, multiplier, eps, d: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr
):
    """One row; the residual stream is brought forward in place."""
    at = tl.arange(0, BLOCK)
    inside, row = at < d, tl.program_id(0) * d
    value = tl.load(residual + row + at, mask=inside, other=0.0)
    if ADD:
        more = tl.load(mixed + row + at, mask=inside, other=0.0).to(tl.float32) * multiplier
        value = (value.to(tl.float32) + more).to(value.dtype)
        tl.store(residual + row + at, value, mask=inside)
    value = value.to(tl.float32)
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / d + eps)
    out = value * inverse * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row + at, out.to(y.dtype.element_ty), mask=inside)


@Launched
@triton.jit
def gated_norm_kernel(
    x, gate, weight, y, gate_stride, eps, d: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr,
    NORM_FIRST: tl.constexpr,
):  # fmt: skip
    """One group of one row."""
    at, first = tl.arange(0, BLOCK), tl.program_id(0) * GROUP
    inside, row = at < GROUP, tl.program_id(1)
    value = tl.load(x + row * d + first + at, mask=inside, other=0.0).to(tl.float32)
    z = tl.load(gate + row * gate_stride + first + at, mask=inside, other=0.0).to(tl.float32)
    opening = z / (1 + tl.exp(-z))
    if not NORM_FIRST:
        value *= opening
    inverse = 1 / tl.sqrt(tl.sum(value * value, 0) / GROUP + eps)
    out = value * inverse * tl.load(weight + first + at, mask=inside, other=0.0).to(tl.float32)
    if NORM_FIRST:
        out *= opening
    tl.store(y + row * d + first + at, out.to(y.dtype.element_ty), mask=inside)


def warps(block: int) -> int:
    """Eight values per thread, up to 16 warps."""
    return min(16, max(1, block // 256))


class AddNorm:
    """Norm of the residual stream after `multiplier` times what a layer made is added to it, in place."""

    def __init__(self, norm: RMSNorm, multiplier: float) -> None:
        self._weight, self._eps, self._multiplier = norm.weight.detach(), norm.eps, multiplier

    def __call__(self, residual: Tensor, mixed: Tensor | None) -> Tensor:
        """(rows, d), contiguous, and the same or None -> (rows, d) in the dtype of the weight."""
        rows, d = residual.shape
        y = torch.empty_like(residual, dtype=self._weight.dtype)
        block = power_of_2(d)
        add_norm_kernel[(rows,)](
            *(residual, y if mixed is None else mixed, self._weight, y, self._multiplier, self._eps),
            *(d, block, mixed is not None),
            num_warps=warps(block),
        )
        return y


class GatedNorm:
    """The Mamba2 mixer's norm."""

    def __init__(self, norm: GatedRMSNorm) -> None:
        self._weight, self._eps = norm.weight.detach(), norm.eps
        self._group, self._norm_first = norm.group_size, norm.norm_before_gate

    def __call__(self, x: Tensor, gate: Tensor) -> Tensor:
        """(rows, d), contiguous, and its gate, contiguous along d -> the same."""
        rows, d = x.shape
        y = torch.empty_like(x)
        block = power_of_2(self._group)
        gated_norm_kernel[(d // self._group, rows)](
            *(x, gate, self._weight, y, gate.stride(0), self._eps),
            *(d, self._group, block, self._norm_first),
            num_warps=warps(block),
        )
        return y
