"""Step sizes and decays of the chunks, and their gradients."""

import triton
import triton.language as tl

from model.ops._launch import Launched

SMALLEST = tl.constexpr(-20.0)
"""Of a = dt A: e^-20 is less than fp32 resolves, and the sums of a chunk keep the small terms beside it."""

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def step_sizes(raw, bias, dt_min, dt_max, SOFTPLUS: tl.constexpr):
    """clamp(softplus(raw + bias)), and the derivative by raw. A NaN stays: a GPU's minimum would take the limit."""
    raw = raw.to(tl.float32) + bias
    size, slope = raw, tl.full(raw.shape, 1.0, tl.float32)
    if SOFTPLUS:
        e = tl.exp(-tl.abs(raw))
        one_more = 1.0 + e  # log(1 + e), exact for small e too (Kahan)
        log1p = tl.where(one_more == 1.0, e, tl.log(one_more) * (e / tl.where(one_more == 1.0, 1.0, one_more - 1.0)))
        size = tl.maximum(raw, 0.0) + log1p
        slope = tl.where(raw >= 0, 1.0, e) / one_more
    slope = tl.where((size >= dt_min) & (size <= dt_max), slope, 0.0)
    least = tl.maximum(size, dt_min, propagate_nan=tl.PropagateNan.ALL)
    return tl.minimum(least, dt_max, propagate_nan=tl.PropagateNan.ALL), slope


@Launched
@triton.jit
def decays_kernel(
    dt, A, dt_bias, decays, seqlen, nheads, nchunks, dt_min, dt_max,
    Q: tl.constexpr, H: tl.constexpr, SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """(4, b, h, c Q): step sizes; log2 of decays from the chunk's start through a position, and from it to the end; and
    step sizes times the decays to the end.
    """
    c, b = tl.program_id(0), tl.program_id(2)
    positions, heads = tl.arange(0, Q), tl.program_id(1) * H + tl.arange(0, H)
    first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
    bias = tl.zeros((H,), tl.float32)
    if BIAS:
        bias = tl.load(dt_bias + heads, mask=heads < nheads, other=0.0).to(tl.float32)
    valid = (positions[:, None] < left) & (heads[None, :] < nheads)
    raw = tl.load(dt + first * nheads + (positions[:, None] * nheads + heads[None, :]), mask=valid, other=0.0)
    step, _ = step_sizes(raw, bias[None, :], dt_min, dt_max, SOFTPLUS)
    step = tl.where(valid, step, 0.0)
    a = step * tl.load(A + heads, mask=heads < nheads, other=0.0).to(tl.float32)[None, :]
    a = tl.maximum(a, SMALLEST, propagate_nan=tl.PropagateNan.ALL)
    width = nchunks * Q
    place = decays + (b.to(tl.int64) * nheads + heads[None, :]) * width + (c * Q + positions[:, None])
    plane = tl.num_programs(2).to(tl.int64) * nheads * width
    tl.store(place, step, mask=heads[None, :] < nheads)
    a *= LOG2_E
    tl.store(place + plane, tl.cumsum(a, 0), mask=heads[None, :] < nheads)
    after = tl.cumsum(a, 0, reverse=True) - a
    tl.store(place + 2 * plane, after, mask=heads[None, :] < nheads)
    tl.store(place + 3 * plane, tl.exp2(after) * step, mask=heads[None, :] < nheads)


@Launched
@triton.jit
def step_gradients_kernel(
    dt, A, dt_bias, d_across, shares, ddt, dA, d_bias, seqlen, nheads, nchunks, dt_min, dt_max,
    Q: tl.constexpr, H: tl.constexpr, SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """A chunk's gradients of the step sizes and, summed over it, of A and dt_bias.

    Every decay is exp of a sum of a; the share of the loss of the product that it scales is the gradient of each a in
    the sum. Position t's a is between an update m and an output l where m < t <= l, before output l where t <= l, after
    update m where m < t, and across the chunk. Where l is m there is no decay, and no share.
    """
    c, b = tl.program_id(0), tl.program_id(2)
    positions, heads = tl.arange(0, Q), tl.program_id(1) * H + tl.arange(0, H)
    first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
    there = heads < nheads
    bias = tl.zeros((H,), tl.float32)
    if BIAS:
        bias = tl.load(dt_bias + heads, mask=there, other=0.0).to(tl.float32)
    valid = (positions[:, None] < left) & there[None, :]
    at = positions[:, None] * nheads + heads[None, :]
    raw = tl.load(dt + first * nheads + at, mask=valid, other=0.0)
    step, slope = step_sizes(raw, bias[None, :], dt_min, dt_max, SOFTPLUS)
    a_h = tl.load(A + heads, mask=there, other=0.0).to(tl.float32)[None, :]
    width = nchunks * Q
    place = shares + (b.to(tl.int64) * nheads + heads[None, :]) * width + (c * Q + positions[:, None])
    plane = tl.num_programs(2).to(tl.int64) * nheads * width
    of_outputs = tl.load(place, mask=valid, other=0.0) + tl.load(place + 3 * plane, mask=valid, other=0.0)
    before = tl.load(place + plane - 1, mask=valid & (positions[:, None] > 0), other=0.0)
    chunk = (b * nchunks + c) * nheads + heads
    across = tl.load(d_across + chunk, mask=there, other=0.0)
    d_a = tl.cumsum(of_outputs, 0, reverse=True) + tl.cumsum(before, 0) + across[None, :]
    d_a = tl.where(valid & (step * a_h > SMALLEST), d_a, 0.0)
    d_raw = tl.where(valid, (tl.load(place + 2 * plane, mask=valid, other=0.0) + a_h * d_a) * slope, 0.0)
    tl.store(ddt + first * nheads + at, d_raw.to(ddt.dtype.element_ty), mask=valid)
    tl.store(dA + chunk, tl.sum(d_a * step, 0), mask=there)
    if BIAS:
        tl.store(d_bias + chunk, tl.sum(d_raw, 0), mask=there)


@Launched
@triton.jit
def totals_kernel(
    dA, dD, d_bias, total_dA, total_dD, total_d_bias, rows, nheads,
    R: tl.constexpr, H: tl.constexpr, SKIP: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Sums over the chunks of all rows of the batch, (rows, h), of one of the three; zeros for what is not there."""
    heads, which = tl.program_id(0) * H + tl.arange(0, H), tl.program_id(1)
    if which == 0:
        _total(dA, total_dA, rows, nheads, heads, R, H, True)
    elif which == 1:
        _total(dD, total_dD, rows, nheads, heads, R, H, SKIP)
    else:
        _total(d_bias, total_d_bias, rows, nheads, heads, R, H, BIAS)


@triton.jit
def _total(of_chunks, total, rows, nheads, heads, R: tl.constexpr, H: tl.constexpr, THERE: tl.constexpr):
    sums = tl.zeros((R, H), tl.float32)
    if THERE:
        for first in range(0, rows, R):
            row = first + tl.arange(0, R)[:, None]
            inside = (row < rows) & (heads[None, :] < nheads)
            sums += tl.load(of_chunks + (row.to(tl.int64) * nheads + heads[None, :]), mask=inside, other=0.0)
    tl.store(total + heads, tl.sum(sums, 0).to(total.dtype.element_ty), mask=heads < nheads)
