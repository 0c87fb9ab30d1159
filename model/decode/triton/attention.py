"""Attention of one position to a buffer of keys and values whose filled length is on the device.

    append  rotates the queries and the new key, and writes key and value to their place
    attend  a share of the positions each, for all query heads of a key head: keys and values are read once
    merge   the shares, in a fixed order

A share's size follows from the length, so programs divide the work evenly whatever the capacity.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._launch import Launched, power_of_2
from model.ops.ssd.triton.parts import dot

PROGRAMS = 256
"""That `attend` should have at least, some two for each multiprocessor."""

BLOCK = 64
"""Positions that are read at once."""


@triton.jit
def _rotate(row, out, cos, sin, d: tl.constexpr, HALF: tl.constexpr, H: tl.constexpr, D: tl.constexpr):
    """Copy a row of d channels, the first 2 HALF of them rotated; `out` may be `row`."""
    at = tl.arange(0, D)
    rest = tl.load(row + at, mask=(at >= 2 * HALF) & (at < d), other=0.0)
    if HALF > 0:
        i = tl.arange(0, H)
        inside = i < HALF
        c, s = tl.load(cos + i, mask=inside, other=0.0), tl.load(sin + i, mask=inside, other=0.0)
        first = tl.load(row + i, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(row + HALF + i, mask=inside, other=0.0).to(tl.float32)
        tl.store(out + i, (first * c - second * s).to(out.dtype.element_ty), mask=inside)
        tl.store(out + HALF + i, (second * c + first * s).to(out.dtype.element_ty), mask=inside)
    tl.store(out + at, rest.to(out.dtype.element_ty), mask=(at >= 2 * HALF) & (at < d))


@Launched
@triton.jit
def append_kernel(
    qkv, buffer, position, cos, sin, capacity,
    heads: tl.constexpr, kv_heads: tl.constexpr, d: tl.constexpr, HALF: tl.constexpr, H: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Keys' heads and then, where there is a rotation, queries' heads of a row."""
    head, b = tl.program_id(0), tl.program_id(1)
    row = qkv + b * ((heads + 2 * kv_heads) * d)
    cos += b * HALF
    sin += b * HALF
    if head < kv_heads:
        at = tl.arange(0, D)
        of_head = (b * kv_heads + head).to(tl.int64) * capacity + tl.load(position)
        of_values = tl.num_programs(1).to(tl.int64) * kv_heads * capacity
        _rotate(row + (heads + head) * d, buffer + of_head * d, cos, sin, d, HALF, H, D)
        value = tl.load(row + (heads + kv_heads + head) * d + at, mask=at < d, other=0.0)
        tl.store(buffer + (of_values + of_head) * d + at, value.to(buffer.dtype.element_ty), mask=at < d)
    else:
        query = row + (head - kv_heads) * d
        _rotate(query, query, cos, sin, d, HALF, H, D)


@Launched
@triton.jit
def attend_kernel(
    qkv, buffer, position, starts, sums, highest, weights, scale, capacity,
    heads: tl.constexpr, kv_heads: tl.constexpr, d: tl.constexpr, Q: tl.constexpr, D: tl.constexpr,
    BLOCK: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of a share of the positions: the weighted sum of the values, the highest score and the sum of the weights."""
    share, head, b = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    nshares = tl.num_programs(0)
    shared: tl.constexpr = heads // kv_heads
    i, at, t = tl.arange(0, Q), tl.arange(0, D), tl.arange(0, BLOCK)
    there = (i[:, None] < shared) & (at[None, :] < d)
    queries = qkv + b * ((heads + 2 * kv_heads) * d) + head * shared * d
    q = tl.load(queries + i[:, None] * d + at[None, :], mask=there, other=0.0)
    length = (tl.load(position) + 1).to(tl.int32)
    size = tl.cdiv(tl.cdiv(length, nshares), BLOCK) * BLOCK
    end = tl.minimum((share + 1) * size, length)
    seen = tl.maximum(share * size, tl.load(starts + b).to(tl.int32))
    keys = buffer + (b * kv_heads + head).to(tl.int64) * capacity * d
    values = keys + tl.num_programs(2).to(tl.int64) * kv_heads * capacity * d

    top = tl.full((Q,), float("-inf"), tl.float32)
    total, acc = tl.zeros((Q,), tl.float32), tl.zeros((Q, D), tl.float32)
    for first in range(share * size, end, BLOCK):
        now = first + t
        known = (now >= seen) & (now < end)
        place = now.to(tl.int64)[:, None] * d + at[None, :]
        inside = known[:, None] & (at[None, :] < d)
        k = tl.load(keys + place, mask=inside, other=0.0)
        v = tl.load(values + place, mask=inside, other=0.0)
        scores = tl.where(known[None, :], dot(q, tl.trans(k), PRECISION) * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        base = tl.where(higher == float("-inf"), 0.0, higher)
        less = tl.exp(top - base)
        p = tl.exp(scores - base[:, None])
        total = total * less + tl.sum(p, 1)
        acc = dot(p.to(v.dtype), v, PRECISION, acc * less[:, None])
        top = higher
    of_head = (b * heads + head * shared + i) * nshares + share
    tl.store(highest + of_head, top, mask=i < shared)
    tl.store(weights + of_head, total, mask=i < shared)
    tl.store(sums + of_head[:, None] * d + at[None, :], acc, mask=there)


@Launched
@triton.jit
def merge_kernel(
    sums, highest, weights, y, nshares, d: tl.constexpr, SHARES: tl.constexpr, D: tl.constexpr
):  # fmt: skip
    """One head of one row."""
    of_head = tl.program_id(0)
    s, at = tl.arange(0, SHARES), tl.arange(0, D)
    top = tl.load(highest + of_head * nshares + s, mask=s < nshares, other=float("-inf"))
    total = tl.load(weights + of_head * nshares + s, mask=s < nshares, other=0.0)
    inside = (s[:, None] < nshares) & (at[None, :] < d)
    acc = tl.load(sums + (of_head * nshares + s[:, None]) * d + at[None, :], mask=inside, other=0.0)
    factor = tl.where(total == 0, 0.0, tl.exp(top - tl.max(top, 0)))  # a share that saw nothing
    out = tl.sum(acc * factor[:, None], 0) / tl.sum(total * factor, 0)
    tl.store(y + of_head * d + at, out.to(y.dtype.element_ty), mask=at < d)


class Attend:
    """Queries, keys and values of one position -> what their heads attend to."""

    def __init__(self, heads: int, kv_heads: int, head_dim: int, rotary_dim: int, scale: float) -> None:
        self._heads, self._kv_heads, self._d = heads, kv_heads, head_dim
        self._half, self._scale = rotary_dim // 2, scale

    def __call__(
        self, qkv: Tensor, buffer: Tensor, position: Tensor, starts: Tensor, turns: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Attend to the positions held and the new one.

        Args:
            qkv: (rows, (heads + 2 kv_heads) head_dim), contiguous; the queries are rotated in place.
            buffer: (2, rows, kv_heads, capacity, head_dim), contiguous; gets the new key and value.
            position: (1,) int64 how many are held.
            starts: (rows,) int64 how many of them, the first ones, are padding.
            turns: cosines and sines of the new position, (rows, rotary_dim / 2) each; None without rotation.

        Returns:
            (rows, heads head_dim).
        """
        rows, (heads, kv_heads, d), capacity = len(qkv), (self._heads, self._kv_heads, self._d), buffer.shape[3]
        D = max(16, power_of_2(d))
        cos, sin = (buffer, buffer) if turns is None else turns
        half = 0 if turns is None else self._half
        append_kernel[(kv_heads + heads * (half > 0), rows)](
            *(qkv, buffer, position, cos, sin, capacity),
            *(heads, kv_heads, d, half, power_of_2(max(1, half)), D),
            num_warps=1,
        )
        nshares = shares(rows * kv_heads, capacity)
        sums = torch.empty((rows, heads, nshares, d), dtype=torch.float32, device=qkv.device)
        highest, weights = (torch.empty_like(sums[..., 0], memory_format=torch.contiguous_format) for _ in range(2))
        attend_kernel[(nshares, kv_heads, rows)](
            *(qkv, buffer, position, starts, sums, highest, weights, self._scale, capacity),
            *(heads, kv_heads, d, max(16, power_of_2(heads // kv_heads)), D, BLOCK),
            PRECISION="ieee" if qkv.dtype is torch.float32 else "tf32",
            num_warps=4, num_stages=2,
        )  # fmt: skip
        y = torch.empty((rows, heads * d), dtype=qkv.dtype, device=qkv.device)
        merge_kernel[(rows * heads,)](
            *(sums, highest, weights, y, nshares, d, power_of_2(nshares), D),
            num_warps=4,
        )
        return y


def shares(heads: int, capacity: int) -> int:
    """Into how many the positions are divided, for so many key heads of all rows."""
    return max(1, min(capacity // BLOCK, 64, PROGRAMS // heads))
