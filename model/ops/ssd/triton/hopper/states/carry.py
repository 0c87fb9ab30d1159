"""The warps that carry a head's state."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from model.ops.ssd.triton.hopper.parts import BOX, edges, exp2, rows_of


@gluon.jit
def carry_part(
    side: gl.constexpr, local, decay, every, k, seq_idx, ring, where,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """What the chunks add to the state after them, into `local`, and what becomes of a state, into `decay`."""
    of_state: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    _, factors, _, _, _, empty = ring
    h, b, _, _, count, _, nheads = where
    state, kept = gl.zeros([P, N], gl.float32, of_state), 1.0
    for i in range(0, count):
        weighted, across = _wait(i, side, seq_idx, ring, where, Q, N, DOCUMENTS, STAGES)
        next_state = warpgroup_mma(weighted, factors.index(i % STAGES), state * across, is_async=True)
        state = warpgroup_mma_wait(0, deps=(next_state,))
        mbarrier.arrive(empty.index(i % STAGES))
        kept *= across
    own = (b * every + k) * nheads + h + side
    gl.store(local + own.to(gl.int64) * (P * N) + _square(P, N, of_state), state)
    gl.store(decay + own, kept)


@gluon.jit
def carry_states(
    side: gl.constexpr, ends, out, cut, seq_idx, ring, where,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The state before each chunk into `out`, by boxes; backwards the gradient of the state after it."""
    of_state: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    box: gl.constexpr = gl.NVMMASharedLayout.get_default_for([P, BOX], gl.bfloat16)
    _, factors, _, _, _, empty = ring
    starts, final, local, decay, d_start = ends
    k, nsegments, parts, chunks, first_chunk, in_all, all_segments = cut
    h, b, reverse, first, count, _, nheads = where
    h += side
    square = _square(P, N, of_state)
    if reverse:
        state = gl.load(final + (b * nheads + h).to(gl.int64) * (P * N) + square).to(gl.float32)
        every = (nsegments - 1) * parts
        for i in range(0, every - k * parts):
            other = (b * every + every - 1 - i) * nheads + h
            state = state * gl.load(decay + other) + gl.load(local + other.to(gl.int64) * (P * N) + square)
    else:
        segment = b * all_segments + first // chunks
        state = gl.load(starts + (segment * nheads + h).to(gl.int64) * (P * N) + square)
    outgoing = gl.allocate_shared_memory(gl.bfloat16, [4, P, BOX], box)
    boxes = rows_of(out, gl.num_programs(1) // nsegments * in_all * nheads * (2 * P), BOX, P, BOX)
    for i in range(0, count):
        weighted, across = _wait(i, side, seq_idx, ring, where, Q, N, DOCUMENTS, STAGES)
        before = state.to(gl.bfloat16)
        next_state = warpgroup_mma(weighted, factors.index(i % STAGES), state * across, is_async=True)
        # While that is made
        c, turn = first + gl.where(reverse, count - 1 - i, i) - first_chunk, 2 * (i % 2)
        row = ((b * in_all + c) * nheads + h) * (2 * P)
        low, high = before.reshape([P, 2, BOX]).permute((0, 2, 1)).split()
        tma.store_wait(2)  # those of the chunk before the last are stored
        outgoing.index(turn).store(low)
        outgoing.index(turn + 1).store(high)
        fence_async_shared()
        tma.async_copy_shared_to_global(boxes, [row, 0], outgoing.index(turn))
        tma.async_copy_shared_to_global(boxes, [row + P, 0], outgoing.index(turn + 1))
        state = warpgroup_mma_wait(0, deps=(next_state,))
        mbarrier.arrive(empty.index(i % STAGES))
    tma.store_wait(0)
    if reverse & (k == 0):
        gl.store(d_start + (b * nheads + h).to(gl.int64) * (P * N) + square, state)


@gluon.jit
def _wait(
    i, side: gl.constexpr, seq_idx, ring, where,
    Q: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Of the i-th chunk, when it is there: x, weighted, and what the chunk leaves of a state."""
    of_state: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    left_side: gl.constexpr = gl.DotOperandLayout(0, of_state, 2)
    by_update: gl.constexpr = gl.SliceLayout(0, left_side)
    tiles, _, vectors, documents, full, _ = ring
    _, b, reverse, first, count, seqlen, _ = where
    stage = i % STAGES
    mbarrier.wait(full.index(stage), (i // STAGES) & 1)
    weight = vectors.index(4 * stage + 2 * side).load(by_update)
    weight = gl.where(reverse, exp2(weight), weight)
    from_start = vectors.index(4 * stage + 2 * side + 1)
    across = exp2(gl.max(from_start.slice(Q - 1, 1).load(gl.SliceLayout(1, of_state)), 0))
    if DOCUMENTS:
        c = first + gl.where(reverse, count - 1 - i, i)
        last, earlier = edges(seq_idx + b.to(gl.int64) * seqlen, c * Q, Q, seqlen)
        same = documents.index(stage).load(by_update) == gl.where(reverse, earlier, last)
        weight, across = gl.where(same, weight, 0.0), gl.where(last == earlier, across, 0.0)
    tile = tiles.index(2 * stage + side).permute((1, 0))
    return (tile.load(left_side).to(gl.float32) * weight[None, :]).to(gl.bfloat16), across


@gluon.jit
def _square(P: gl.constexpr, N: gl.constexpr, layout: gl.constexpr):
    """Places of a state in fp32."""
    p, n = gl.arange(0, P, layout=gl.SliceLayout(1, layout)), gl.arange(0, N, layout=gl.SliceLayout(0, layout))
    return p[:, None] * N + n[None, :]
