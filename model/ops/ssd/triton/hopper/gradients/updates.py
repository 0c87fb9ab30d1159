"""The warps that make the gradient of the updates."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from model.ops.ssd.triton.hopper.parts import edges, exp2, here, map_of_outputs, product


@gluon.jit
def updates(
    dx, shares, plane, D, dD, seq_idx, x_tiles, dy_tiles, B_tile, C_tile, handed, at_ends, vectors,
    after, ready, full, empty, made, ended, first_head, count, b, c, seqlen, nheads, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, SKIP: gl.constexpr, DOCUMENTS: gl.constexpr,
    STAGES: gl.constexpr,
):  # fmt: skip
    """dx, and dD of the chunk. `shares` gets the shares of the loss of what updates do to the chunk's end; `at_ends` for
    each head the gradient of the step sizes by both what an update does to the chunk's end and what its own output
    reads of it, and last that of B C^T by the latter.
    """
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, P, 16])
    square: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q, 16])
    of_x: gl.constexpr = gl.SliceLayout(1, narrow)
    even: gl.constexpr = gl.BlockedLayout([1, 8], [256 // P, P // 8], [4, 1], [1, 0])
    m = gl.arange(0, Q, layout=of_x)
    document, last = m, 0
    if DOCUMENTS:
        of_row = seq_idx + b.to(gl.int64) * seqlen
        document = gl.load(of_row + gl.minimum(c * Q + m, seqlen - 1))
        last, _ = edges(of_row, c * Q, Q, seqlen)
    mbarrier.wait(ready, 0)
    fence_async_shared()
    _, own_score = map_of_outputs(B_tile, C_tile, Q, square)
    own_score = gl.convert_layout(own_score, of_x)
    rows, p = gl.arange(0, Q, layout=gl.SliceLayout(1, even)), gl.arange(0, P, layout=gl.SliceLayout(0, even))
    there = (rows[:, None] < seqlen - c * Q) & (p[None, :] < P)
    first = b.to(gl.int64) * seqlen + c * Q
    own = gl.zeros([Q], gl.float32, of_x)
    for i in range(0, count):
        h, stage, turn = first_head + i, i % STAGES, i % 2
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        fence_async_shared()
        x_tile, dy_tile, d_state = x_tiles.index(stage), dy_tiles.index(stage), after.index(stage)
        next_update = product(B_tile, d_state.permute((1, 0)), Q, P, narrow)
        skip = 0.0
        if SKIP:
            skip = gl.load(D + h).to(gl.float32)
        step, to_end = vectors.index(4 * stage).load(of_x), exp2(vectors.index(4 * stage + 2).load(of_x))
        if DOCUMENTS:
            to_end = gl.where(document == last, to_end, 0.0)
        xs = x_tile.load(narrow).to(gl.float32)
        own_product = gl.sum(xs * dy_tile.load(narrow).to(gl.float32), 1)
        own += own_product * step
        d_update = warpgroup_mma_wait(0, deps=(next_update,)) * to_end[:, None]
        at_end = gl.sum(d_update * xs, 1)
        at_ends.index(turn).store(at_end + own_score * own_product)
        mbarrier.arrive(ended.index(turn))
        gl.store(shares + plane + (b.to(gl.int64) * nheads + h) * nchunks * Q + c * Q + m, at_end * step)
        mbarrier.wait(made.index(turn), (i // 2) & 1)
        next_update = warpgroup_mma(handed.index(turn), dy_tile, d_update, is_async=True)

        dys = dy_tile.load(narrow).to(gl.float32)
        if SKIP:
            gl.store(dD + (b * nchunks + c) * nheads + h, gl.sum(own_product, 0))
        d_update = warpgroup_mma_wait(0, deps=(next_update,))
        mbarrier.arrive(empty.index(stage))
        d_x = d_update * step[:, None] + (own_score * step + skip)[:, None] * dys
        of_heads = here(nheads) * P
        place = first * of_heads + h * P + (rows[:, None] * of_heads + p[None, :])
        gl.store(dx + place, gl.convert_layout(d_x.to(dx.dtype.element_ty), even), mask=there)
    at_ends.index(count % 2).store(own)
    mbarrier.arrive(ended.index(count % 2))
