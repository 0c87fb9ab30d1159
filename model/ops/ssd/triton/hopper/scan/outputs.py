"""The warps that make a head's outputs."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from model.ops.ssd.triton.hopper.parts import edges, exp2, here, product


@gluon.jit
def outputs(
    side: gl.constexpr, D, seq_idx, start, local, decay, starts, final, x_tiles, B_tiles, C_tiles, vectors, documents,
    handed, full, empty, made, taken, first_head, b, s, first_chunk, last_chunk, seqlen, nheads, nsegments, parts,
    chunks_of_start, nstarts,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, SKIP: gl.constexpr, DOCUMENTS: gl.constexpr,
    START: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """y (headdim, position) by chunks, in the place of x: from the state, which stays in registers, and by the map in
    `handed`.

    Every `chunks_of_start` chunks the state goes to `starts`, that after the last segment to `final`.
    """
    of_state: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    of_out: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q, 16])
    left_of_state: gl.constexpr = gl.DotOperandLayout(0, of_state, 2)
    left_of_out: gl.constexpr = gl.DotOperandLayout(0, of_out, 2)
    by_update: gl.constexpr = gl.SliceLayout(0, left_of_state)
    by_output: gl.constexpr = gl.SliceLayout(0, of_out)
    h = first_head + side
    square = (
        gl.arange(0, P, layout=gl.SliceLayout(1, of_state))[:, None] * N
        + gl.arange(0, N, layout=gl.SliceLayout(0, of_state))[None, :]
    )
    state = gl.zeros([P, N], gl.float32, of_state)
    if START:
        state += gl.load(start + (b * nheads + h).to(gl.int64) * (P * N) + square).to(gl.float32)
    for i in range(0, s * parts):
        other = (b * (nsegments - 1) * parts + i) * nheads + h
        state = state * gl.load(decay + other) + gl.load(local + other.to(gl.int64) * (P * N) + square)
    skip = 0.0
    if SKIP:
        skip = gl.load(D + h).to(gl.float32)
    of_row = seq_idx + b.to(gl.int64) * seqlen
    for start_chunk in range(first_chunk, last_chunk, chunks_of_start):
        place = ((b * nstarts + here(start_chunk) // chunks_of_start) * nheads + h).to(gl.int64) * (P * N)
        gl.store(starts + place + square, state)
        for c in range(start_chunk, gl.minimum(start_chunk + chunks_of_start, last_chunk)):
            i = c - first_chunk
            stage, turn = i % STAGES, i % 2
            mbarrier.wait(full.index(stage), (i // STAGES) & 1)
            tile = x_tiles.index(2 * stage + side).permute((1, 0))
            through = vectors.index(6 * stage + 3 * side + 1)
            weight = vectors.index(6 * stage + 3 * side + 2).load(by_update)
            across = exp2(gl.max(through.slice(Q - 1, 1).load(gl.SliceLayout(1, of_state)), 0))
            if DOCUMENTS:
                last, earlier = edges(of_row, c * Q, Q, seqlen)
                weight = gl.where(documents.index(stage).load(by_update) == last, weight, 0.0)
                across = gl.where(last == earlier, across, 0.0)
            weighted = (tile.load(left_of_state).to(gl.float32) * weight[None, :]).to(gl.bfloat16)
            before, kept = gl.convert_layout(state.to(gl.bfloat16), left_of_out), state * across
            out = product(before, C_tiles.index(stage).permute((1, 0)), P, Q, of_out)
            next_state = warpgroup_mma(weighted, B_tiles.index(stage), kept, is_async=True)
            mbarrier.wait(made.index(turn), (i // 2) & 1)
            from_start = exp2(through.load(by_output))
            if DOCUMENTS:
                from_start = gl.where(documents.index(stage).load(by_output) == earlier, from_start, 0.0)
            xs = tile.load(left_of_out)
            out = warpgroup_mma_wait(1, deps=(out,)) * from_start[None, :]
            if SKIP:
                out += skip * gl.convert_layout(xs, of_out).to(gl.float32)
            out = warpgroup_mma(xs, handed.index(2 * turn + side), out, is_async=True)
            out, state = warpgroup_mma_wait(0, deps=(out, next_state))
            mbarrier.arrive(taken.index(turn))
            tile.store(out.to(gl.bfloat16))
            fence_async_shared()
            mbarrier.arrive(empty.index(stage))
    if s == nsegments - 1:
        gl.store(final + (b * nheads + h).to(gl.int64) * (P * N) + square, state)
