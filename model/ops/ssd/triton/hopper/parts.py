"""What the warps share."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import tma, warpgroup_mma

ARRIVALS = gl.constexpr(1 + 32)
"""At `full` where one warp loads: of the copy engine, and of each thread."""

BOX = gl.constexpr(64)
"""Columns of bf16 that the copy engine moves as one piece, 128 bytes wide. The states between chunks are in memory by
such boxes, (b, c, h, n / BOX, p, BOX): written so they are as fast as by threads, in rows of N columns 4% slower."""


@gluon.jit
def exp2(x):
    """2^x; 0 where that is less than the normal numbers of fp32, which saves two instructions of three."""
    return gl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=gl.float32, is_pure=True, pack=1)


@gluon.jit
def here(number):
    """It; what follows from it is computed here, not once before a loop, from when on it would take registers."""
    return gl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [number], dtype=gl.int32, is_pure=False, pack=1)


@gluon.jit
def edges(seq_idx, start, Q: gl.constexpr, seqlen):
    """The documents of a chunk's last position and of the one before its first."""
    last = gl.load(seq_idx + gl.minimum(start + Q, seqlen) - 1)
    return last, gl.load(seq_idx + gl.maximum(start - 1, 0))


@gluon.jit
def product(a, b, M: gl.constexpr, N: gl.constexpr, layout: gl.constexpr):
    """Begin a b, (M, N)."""
    return warpgroup_mma(a, b, gl.zeros([M, N], gl.float32, layout), use_acc=False, is_async=True)


@gluon.jit
def rows_of(first, count, width, rows: gl.constexpr, columns: gl.constexpr):
    """What the copy engine wants to know of bf16 numbers (count, width), of which a tile has (rows, columns)."""
    tile: gl.constexpr = gl.NVMMASharedLayout.get_default_for([rows, columns], gl.bfloat16)
    return tma.make_tensor_descriptor(first, [count, width], [width, 1], [rows, columns], tile)
