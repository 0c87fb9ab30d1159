"""What the kernels share: products, tiles of token-major tensors, documents."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")

AHEAD = tl.constexpr(3)
"""Chunks that L2 is told of before they are wanted: the pipelines of loads look one or two ahead."""


@triton.jit
def dot(a, b, PRECISION: tl.constexpr, acc=None):
    if INTERPRETED:  # numpy knows no bf16: the same products and sums in fp32
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def _tile(tensor, first, left, positions, width, offset, columns, count: tl.constexpr):
    """Pointers to (Q, columns) of a (tokens, width) tensor from token `first` on, and which of them are inside."""
    place = tensor + first * width + (positions[:, None] * width + offset + columns[None, :])
    return place, (positions[:, None] < left) & (columns[None, :] < count)


@triton.jit
def load_tile(tensor, first, left, positions, width, offset, columns, count: tl.constexpr):
    place, inside = _tile(tensor, first, left, positions, width, offset, columns, count)
    return tl.load(place, mask=inside, other=0.0)


@triton.jit
def store_tile(tensor, values, first, left, positions, width, offset, columns, count: tl.constexpr):
    place, inside = _tile(tensor, first, left, positions, width, offset, columns, count)
    tl.store(place, values.to(tensor.dtype.element_ty), mask=inside)


@triton.jit
def hint_tile(tensor, first, left, positions, width, offset, count: tl.constexpr, COUNT: tl.constexpr):
    """Tell L2 that a tile will be read: memory is slower than what the pipeline of loads looks ahead."""
    STEP: tl.constexpr = 256 // tensor.dtype.element_ty.primitive_bitwidth  # of 32 bytes, a sector
    rows, sectors = tl.minimum(positions, left - 1), tl.minimum(tl.arange(0, COUNT // STEP) * STEP, count - 1)
    place = tensor + first * width + (rows[:, None] * width + offset + sectors[None, :])
    hint: tl.constexpr = "prefetch.global.L2 [$1]; mov.u32 $0, 0;"
    tl.inline_asm_elementwise(hint, "=r,l", [place.to(tl.int64)], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def documents(seq_idx, first, Q: tl.constexpr, seqlen):
    """Of a chunk's positions, of the last one, and of the one before the first."""
    at = tl.minimum(first + tl.arange(0, Q), seqlen - 1)
    last = tl.load(seq_idx + tl.minimum(first + Q, seqlen) - 1)
    return tl.load(seq_idx + at), last, tl.load(seq_idx + tl.maximum(first - 1, 0))
