"""The rotation, both halves of some positions of some heads in one tile."""

import triton
import triton.language as tl

from model.ops._launch import Launched


@Launched
@triton.jit
def rotary_kernel(
    x, cos, sin, y, seqlen, heads, angles_of_batch,
    x_batch, x_head, x_row, y_batch, y_head, y_row,
    half: tl.constexpr, rest: tl.constexpr, T: tl.constexpr, H: tl.constexpr, P: tl.constexpr, REST: tl.constexpr,
    INVERSE: tl.constexpr,
):  # fmt: skip
    """(b, h, l, p): T positions of H heads, neighbouring heads one after another; padded to P and REST channels."""
    groups, b = tl.cdiv(heads, H), tl.program_id(1).to(tl.int64)
    index = tl.arange(0, T * H)
    row = (tl.program_id(0) // groups).to(tl.int64) * T + index // H
    head = ((tl.program_id(0) % groups) * H + index % H).to(tl.int64)
    there = ((row < seqlen) & (head < heads))[:, None]
    x += (b * x_batch + head * x_head + row * x_row)[:, None]
    y += (b * y_batch + head * y_head + row * y_row)[:, None]
    channel = tl.arange(0, P)[None, :]
    inside, angle = there & (channel < half), b * angles_of_batch + (row * half)[:, None] + channel
    first = tl.load(x + channel, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(x + half + channel, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    if INVERSE:
        s = -s
    tl.store(y + channel, (first * c - second * s).to(y.dtype.element_ty), mask=inside)
    tl.store(y + half + channel, (second * c + first * s).to(y.dtype.element_ty), mask=inside)
    if rest > 0:
        channel = 2 * half + tl.arange(0, REST)[None, :]
        inside = there & (channel < 2 * half + rest)
        tl.store(y + channel, tl.load(x + channel, mask=inside, other=0.0), mask=inside)
