"""The warp that loads."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier, tma

from model.ops.ssd.triton.hopper.parts import rows_of


@gluon.jit
def load(
    x, B, decays, plane, seq_idx, ring, where, ngroups, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """For each chunk B; of both heads x, the weights of updates and the decays from the chunk's start. Backwards C, dy,
    and those decays twice.
    """
    tiles, B_tiles, vectors, documents, full, empty = ring
    h, b, reverse, first, count, seqlen, nheads = where
    start, of_heads, of_groups = b.to(gl.int64) * seqlen, nheads * P, ngroups * N
    group = h // (nheads // ngroups) * N
    x_rows = rows_of(x + start * of_heads, seqlen, of_heads, Q, P)
    B_rows = rows_of(B + start * of_groups, seqlen, of_groups, Q, N)
    positions = gl.arange(0, Q, layout=gl.BlockedLayout([Q // 32], [32], [1], [0]))
    for i in range(0, count):
        c, stage = first + gl.where(reverse, count - 1 - i, i), i % STAGES
        there = full.index(stage)
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        mbarrier.expect(there, 2 * (2 * Q * P + Q * N))
        tma.async_copy_global_to_shared(B_rows, [c * Q, group], there, B_tiles.index(stage))
        from_start = decays + plane + ((b.to(gl.int64) * nheads + h) * nchunks + c) * Q
        for side in gl.static_range(2):
            tma.async_copy_global_to_shared(x_rows, [c * Q, (h + side) * P], there, tiles.index(2 * stage + side))
            of_head = from_start + side * nchunks * Q + positions
            weights = of_head + gl.where(reverse, 0, 2 * plane)
            async_copy.async_copy_global_to_shared(vectors.index(4 * stage + 2 * side), weights)
            async_copy.async_copy_global_to_shared(vectors.index(4 * stage + 2 * side + 1), of_head)
        if DOCUMENTS:
            of_chunk, inside = seq_idx + start + c * Q, positions < seqlen - c * Q
            async_copy.async_copy_global_to_shared(documents.index(stage), of_chunk + positions, inside)
        async_copy.mbarrier_arrive(there, increment_count=False)
