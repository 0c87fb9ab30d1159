"""The gated RMSNorm in Triton: a launch forward, one backward, and no atomic additions.

A program has one group of channels of several rows: its whole group lies in registers, so that the backward makes the
mean square anew from what it reads anyway, and nothing is kept but the inputs. It goes along its rows tile by tile and
sums the weight's gradient on the way; torch adds the programs' sums.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._launch import Launched, power_of_2

TILE, OF_THREAD = 4096, 16
"""Elements at once, of as many rows as that is; and of each thread."""

TILE_BACKWARD, OF_THREAD_BACKWARD = 1024, 32
"""Likewise of the gated backward, whose programs then are a few warps each: many of them wait for memory at once, and
a group of 1024 is summed within a warp."""

PROGRAMS = 1056
"""Of a backward, at most: a constant, since the number of sums is part of the rounding."""

LEAST_TILES = 2
"""Of a program of a backward."""


class Plan:
    """Sizes of a call: a function of shapes alone, so that results are."""

    def __init__(self, rows: int, d: int, group_size: int, tile: int | None = None, of_thread: int = OF_THREAD) -> None:
        self.groups = d // group_size
        block, tile = power_of_2(group_size), tile or TILE
        tile_rows = max(1, min(tile // block, power_of_2(rows)))
        tiles = -(-rows // tile_rows)
        self.forward_grid = (tiles * self.groups,)
        self.tiles_of_program = max(LEAST_TILES, -(-tiles // max(1, PROGRAMS // self.groups)))
        self.parts = -(-tiles // self.tiles_of_program)
        self.backward_grid = (self.parts * self.groups,)
        warps = min(16, max(1, block * tile_rows // (32 * of_thread)))
        self.options = {"group_size": group_size, "R": tile_rows, "BLOCK": block, "num_warps": warps}


def forward(
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
    out_dtype: torch.dtype,
) -> Tensor:
    """Return (..., d) in `out_dtype`."""
    rows = as_rows(x)
    gates = rows if gate is None else as_rows(gate)
    plan = Plan(len(rows), rows.shape[1], group_size)
    y = torch.empty(x.shape, dtype=out_dtype, device=x.device)
    with torch.cuda.device_of(x):
        forward_kernel[plan.forward_grid](
            *(rows, gates, weight.contiguous(), y, rows.stride(0), gates.stride(0), len(rows), plan.groups, eps),
            GATED=gate is not None, NORM_FIRST=norm_before_gate, **plan.options,
        )  # fmt: skip
    return y


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    gate: Tensor | None,
    eps: float,
    group_size: int,
    norm_before_gate: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, weight and gate (empty without one)."""
    rows, grads = as_rows(x), as_rows(grad_y)
    gates = rows if gate is None else as_rows(gate)
    plan = Plan(len(rows), rows.shape[1], group_size, TILE_BACKWARD, OF_THREAD_BACKWARD)
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    d_gate = x.new_empty(0) if gate is None else torch.empty(x.shape, dtype=gate.dtype, device=x.device)
    d_weight = x.new_empty((plan.parts, len(weight)), dtype=torch.float32)
    with torch.cuda.device_of(x):
        backward_kernel[plan.backward_grid](
            *(grads, rows, gates, weight.contiguous(), dx, d_gate, d_weight),
            *(grads.stride(0), rows.stride(0), gates.stride(0), len(rows), plan.groups, plan.tiles_of_program, eps),
            GATED=gate is not None, NORM_FIRST=norm_before_gate, **plan.options,
        )  # fmt: skip
    return dx, d_weight.sum(0).to(weight.dtype), d_gate


def as_rows(tensor: Tensor) -> Tensor:
    """(rows, d) whose channels lie one after another: a view, where rows lie equally far from each other."""
    rows = tensor.reshape(-1, tensor.shape[-1])
    return rows if rows.stride(1) == 1 or rows.shape[1] == 1 else rows.contiguous()


@Launched
@triton.jit
def forward_kernel(
    x, gate, weight, y, x_stride, gate_stride, rows, groups, eps,
    group_size: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, GATED: tl.constexpr, NORM_FIRST: tl.constexpr,
):  # fmt: skip
    """A tile of one group."""
    tile, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    columns = tl.arange(0, BLOCK)
    at = group * group_size + columns
    row = tile.to(tl.int64) * R + tl.arange(0, R)
    inside = (row[:, None] < rows) & (columns[None, :] < group_size)
    w = tl.load(weight + at, mask=columns < group_size, other=0.0).to(tl.float32)
    value = tl.load(x + row[:, None] * x_stride + at[None, :], mask=inside, other=0.0).to(tl.float32)
    if GATED:
        g = tl.load(gate + row[:, None] * gate_stride + at[None, :], mask=inside, other=0.0).to(tl.float32)
        opening = g * tl.sigmoid(g)
        if not NORM_FIRST:
            value *= opening
    out = value * tl.rsqrt(tl.sum(value * value, 1) / group_size + eps)[:, None] * w[None, :]
    if GATED and NORM_FIRST:
        out *= opening
    place = y + row[:, None] * (groups * group_size) + at[None, :]
    tl.store(place, out.to(y.dtype.element_ty), mask=inside)


@Launched
@triton.jit
def backward_kernel(
    dy, x, gate, weight, dx, d_gate, d_weight, dy_stride, x_stride, gate_stride, rows, groups, tiles_of_program, eps,
    group_size: tl.constexpr, R: tl.constexpr, BLOCK: tl.constexpr, GATED: tl.constexpr, NORM_FIRST: tl.constexpr,
):  # fmt: skip
    """Some tiles of one group, one after another; `d_weight` (programs, d) gets the sum over their rows."""
    part, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    columns = tl.arange(0, BLOCK)
    at = group * group_size + columns
    w = tl.load(weight + at, mask=columns < group_size, other=0.0).to(tl.float32)
    w_sum = tl.zeros((R, BLOCK), tl.float32)
    first = part.to(tl.int64) * tiles_of_program * R
    for i in range(0, tiles_of_program):
        row = first + i * R + tl.arange(0, R)
        inside = (row[:, None] < rows) & (columns[None, :] < group_size)
        value = tl.load(x + row[:, None] * x_stride + at[None, :], mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(dy + row[:, None] * dy_stride + at[None, :], mask=inside, other=0.0).to(tl.float32)
        place = row[:, None] * (groups * group_size) + at[None, :]
        raw = value
        if GATED:
            g = tl.load(gate + row[:, None] * gate_stride + at[None, :], mask=inside, other=0.0).to(tl.float32)
            sigmoid = tl.sigmoid(g)
            slope = sigmoid * (1.0 + g * (1.0 - sigmoid))
            if not NORM_FIRST:
                value = raw * (g * sigmoid)
        inverse = tl.rsqrt(tl.sum(value * value, 1) / group_size + eps)
        inverse = tl.where(row < rows, inverse, 0.0)[:, None]  # else, with an eps of 0, infinite
        normed = value * inverse
        if GATED and NORM_FIRST:
            tl.store(d_gate + place, (grad * normed * w[None, :] * slope).to(d_gate.dtype.element_ty), mask=inside)
            grad *= g * sigmoid
        w_sum += grad * normed
        grad *= w[None, :]
        mean = (tl.sum(grad * value, 1) / group_size)[:, None] * inverse
        d_value = (grad - normed * mean) * inverse
        if GATED and not NORM_FIRST:
            tl.store(d_gate + place, (d_value * raw * slope).to(d_gate.dtype.element_ty), mask=inside)
            d_value *= g * sigmoid
        tl.store(dx + place, d_value.to(dx.dtype.element_ty), mask=inside)
    sums = d_weight + part.to(tl.int64) * (groups * group_size) + at
    tl.store(sums, tl.sum(w_sum, 0), mask=columns < group_size)
