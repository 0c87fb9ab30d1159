"""The warps that go through the states."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from model.ops.ssd.triton.hopper.parts import edges, exp2, product


@gluon.jit
def through(
    dB, dC, shares, plane, d_across, seq_idx, x_tiles, dy_tiles, B_tile, C_tile, gradient, vectors, before, after,
    ready, full, empty, finished, first_head, count, b, c, out, g, seqlen, nheads, ngroups, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """dB and dC into rows from `out` on: through the states around the chunk, and at last inside it, by `gradient`.

    `shares` gets, of each output, the share of the loss of what it reads of the state; `d_across` that of what the
    state before the chunk is after it.
    """
    wide: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, P, 16])
    left_side: gl.constexpr = gl.DotOperandLayout(0, wide, 2)
    of_rows: gl.constexpr = gl.SliceLayout(1, left_side)
    of_shares: gl.constexpr = gl.SliceLayout(1, narrow)
    # A whole tile's sum: threads along the rows, as which shared memory gives them without conflicts
    tall: gl.constexpr = gl.BlockedLayout([1, 8], [16, 2], [4, 1], [0, 1])
    document, last, earlier = 0, 0, 0
    if DOCUMENTS:
        of_row = seq_idx + b.to(gl.int64) * seqlen
        document = gl.load(of_row + gl.minimum(c * Q + gl.arange(0, Q, layout=of_rows), seqlen - 1))
        last, earlier = edges(of_row, c * Q, Q, seqlen)
    dB_sum, dC_sum = gl.zeros([Q, N], gl.float32, wide), gl.zeros([Q, N], gl.float32, wide)
    mbarrier.wait(ready, 0)
    for i in range(0, count):
        stage = i % STAGES
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        fence_async_shared()
        state, dy_tile = before.index(stage), dy_tiles.index(stage)
        from_start = exp2(vectors.index(4 * stage + 1).load(of_rows))
        weight = vectors.index(4 * stage + 3).load(of_rows)
        if DOCUMENTS:
            from_start = gl.where(document == earlier, from_start, 0.0)
            weight = gl.where(document == last, weight, 0.0)
        scaled = (dy_tile.load(left_side).to(gl.float32) * from_start[:, None]).to(gl.bfloat16)
        weighted = (x_tiles.index(stage).load(left_side).to(gl.float32) * weight[:, None]).to(gl.bfloat16)
        dC_next = warpgroup_mma(scaled, state, dC_sum, is_async=True)
        dB_next = warpgroup_mma(weighted, after.index(stage), dB_sum, is_async=True)
        dC_sum, dB_sum = warpgroup_mma_wait(0, deps=(dC_next, dB_next))
        read = product(C_tile, state.permute((1, 0)), Q, P, narrow)
        # While that is made
        across = exp2(gl.max(vectors.index(4 * stage + 1).slice(Q - 1, 1).load(gl.SliceLayout(1, tall)), 0))
        if DOCUMENTS:
            across = gl.where(last == earlier, across, 0.0)
        kept = gl.zeros([P], gl.float32, gl.SliceLayout(1, tall))
        for k in gl.static_range(2):
            part = state.slice(k * N // 2, N // 2, 1).load(tall).to(gl.float32)
            kept += gl.sum(part * after.index(stage).slice(k * N // 2, N // 2, 1).load(tall).to(gl.float32), 1)
        gl.store(d_across + (b * nchunks + c) * nheads + first_head + i, gl.sum(kept, 0) * across)
        read = warpgroup_mma_wait(0, deps=(read,))
        share = gl.sum(read * dy_tile.load(narrow).to(gl.float32), 1) * gl.convert_layout(from_start, of_shares)
        of_head = (b.to(gl.int64) * nheads + first_head + i) * nchunks * Q + c * Q
        gl.store(shares + 3 * plane + of_head + gl.arange(0, Q, layout=of_shares), share)
        mbarrier.arrive(empty.index(stage))
    mbarrier.wait(finished, 0)
    fence_async_shared()
    dB_next = warpgroup_mma(gradient, C_tile, dB_sum, is_async=True)
    dC_next = warpgroup_mma(gradient.permute((1, 0)), B_tile, dC_sum, is_async=True)
    dB_sum, dC_sum = warpgroup_mma_wait(0, deps=(dB_next, dC_next))
    rows, n = gl.arange(0, Q, layout=gl.SliceLayout(1, wide)), gl.arange(0, N, layout=gl.SliceLayout(0, wide))
    place = out * (ngroups * N) + (rows[:, None] * (ngroups * N) + g * N + n[None, :])
    there = (rows[:, None] < seqlen - c * Q) & (n[None, :] < N)
    gl.store(dB + place, dB_sum.to(dB.dtype.element_ty), mask=there)
    gl.store(dC + place, dC_sum.to(dC.dtype.element_ty), mask=there)
