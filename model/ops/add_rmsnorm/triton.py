"""The sum and its RMSNorm in Triton: a launch forward, one backward. Rows, programs and sums as in gated_rmsnorm."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._launch import Launched
from model.ops.add_rmsnorm.torch import shared
from model.ops.gated_rmsnorm.triton import Plan, as_rows


def forward(
    residual: Tensor, mixed: Tensor, weight: Tensor, eps: float, multiplier: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return the sum in the residual's dtype, and its norm in `out_dtype`."""
    before, added = as_rows(residual), as_rows(mixed)
    plan = Plan(len(before), before.shape[1], before.shape[1])
    total, y = (torch.empty(residual.shape, dtype=dtype, device=mixed.device) for dtype in (residual.dtype, out_dtype))
    with torch.cuda.device_of(residual):
        forward_kernel[plan.forward_grid](
            *(before, added, weight.contiguous(), total, y, before.stride(0), added.stride(0), len(before)),
            *(eps, multiplier),
            **plan.options,
        )
    return total, y


def backward(
    grad_total: Tensor | None,
    grad_y: Tensor,
    total: Tensor,
    weight: Tensor,
    eps: float,
    multiplier: float,
    mixed_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the residual, of what is added (empty where `shared`) and of the weight."""
    rows, grads = as_rows(total), as_rows(grad_y)
    through = rows if grad_total is None else as_rows(grad_total)
    plan = Plan(len(rows), rows.shape[1], rows.shape[1])
    one = shared(total.dtype, mixed_dtype, multiplier)
    d_residual = torch.empty(total.shape, dtype=total.dtype, device=total.device)
    d_mixed = total.new_empty(0 if one else total.shape, dtype=mixed_dtype)
    d_weight = total.new_empty((plan.parts, len(weight)), dtype=torch.float32)
    with torch.cuda.device_of(total):
        backward_kernel[plan.backward_grid](
            *(through, grads, rows, weight.contiguous(), d_residual, d_mixed, d_weight),
            *(through.stride(0), grads.stride(0), rows.stride(0), len(rows), plan.tiles_of_program, eps, multiplier),
            THROUGH=grad_total is not None, SHARED=one, **plan.options,
        )  # fmt: skip
    return d_residual, d_mixed, d_weight.sum(0).to(weight.dtype)


@Launched
@triton.jit
def forward_kernel(
    residual, mixed, weight, total, y, residual_stride, mixed_stride, rows, eps, multiplier,
    group_size: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A tile of rows. The norm is of the sum as it is stored, so that the backward sees the same."""
    columns = tl.arange(0, BLOCK)
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    inside = (row[:, None] < rows) & (columns[None, :] < group_size)
    w = tl.load(weight + columns, mask=columns < group_size, other=0.0).to(tl.float32)
    value = tl.load(residual + row[:, None] * residual_stride + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    added = tl.load(mixed + row[:, None] * mixed_stride + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    stored = (value + multiplier * added).to(total.dtype.element_ty)
    place = row[:, None] * group_size + columns[None, :]
    tl.store(total + place, stored, mask=inside)
    value = stored.to(tl.float32)
    out = value * tl.rsqrt(tl.sum(value * value, 1) / group_size + eps)[:, None] * w[None, :]
    tl.store(y + place, out.to(y.dtype.element_ty), mask=inside)


@Launched
@triton.jit
def backward_kernel(
    through, dy, total, weight, d_residual, d_mixed, d_weight,
    through_stride, dy_stride, total_stride, rows, tiles_of_program, eps, multiplier,
    group_size: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, THROUGH: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """Some tiles, one after another; `d_weight` (programs, d) gets the sum over their rows."""
    columns = tl.arange(0, BLOCK)
    w = tl.load(weight + columns, mask=columns < group_size, other=0.0).to(tl.float32)
    w_sum = tl.zeros((R, BLOCK), tl.float32)
    first = tl.program_id(0).to(tl.int64) * tiles_of_program * R
    for i in range(0, tiles_of_program):
        row = first + i * R + tl.arange(0, R)
        inside = (row[:, None] < rows) & (columns[None, :] < group_size)
        value = tl.load(total + row[:, None] * total_stride + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(dy + row[:, None] * dy_stride + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        inverse = tl.rsqrt(tl.sum(value * value, 1) / group_size + eps)
        inverse = tl.where(row < rows, inverse, 0.0)[:, None]  # else, with an eps of 0, infinite
        normed = value * inverse
        w_sum += grad * normed
        grad *= w[None, :]
        mean = (tl.sum(grad * value, 1) / group_size)[:, None] * inverse
        out = (grad - normed * mean) * inverse
        if THROUGH:
            at = through + row[:, None] * through_stride + columns[None, :]
            out += tl.load(at, mask=inside, other=0.0).to(tl.float32)
        place = row[:, None] * group_size + columns[None, :]
        tl.store(d_residual + place, out.to(d_residual.dtype.element_ty), mask=inside)
        if not SHARED:
            tl.store(d_mixed + place, (out * multiplier).to(d_mixed.dtype.element_ty), mask=inside)
    sums = d_weight + tl.program_id(0).to(tl.int64) * group_size + columns
    tl.store(sums, tl.sum(w_sum, 0), mask=columns < group_size)
