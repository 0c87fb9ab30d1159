"""The warp that loads."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier, tma

from model.ops.ssd.triton.hopper.parts import rows_of


@gluon.jit
def load(
    x, y, B, C, decays, plane, seq_idx, x_tiles, B_tiles, C_tiles, vectors, documents, full, empty, h, b, g,
    first_chunk, last_chunk, seqlen, nheads, ngroups, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """For each chunk B and C; and of both heads x, and the planes of decays that outputs want: step sizes, from the
    chunk's start, weights of updates. In the place of x the outputs come back, and are stored.

    Tiles are moved by the GPU's copy engine, which reads zeros after the sequence and stores nothing there.
    """
    first, of_heads, of_groups = b.to(gl.int64) * seqlen, nheads * P, ngroups * N
    x_rows = rows_of(x + first * of_heads, seqlen, of_heads, Q, P)
    y_rows = rows_of(y + first * of_heads, seqlen, of_heads, Q, P)
    B_rows = rows_of(B + first * of_groups, seqlen, of_groups, Q, N)
    C_rows = rows_of(C + first * of_groups, seqlen, of_groups, Q, N)
    positions = gl.arange(0, Q, layout=gl.BlockedLayout([Q // 32], [32], [1], [0]))
    for c in range(first_chunk, last_chunk + STAGES):
        i = c - first_chunk
        stage = i % STAGES
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        if i >= STAGES:
            for side in gl.static_range(2):
                place = [(c - STAGES) * Q, (h + side) * P]
                tma.async_copy_shared_to_global(y_rows, place, x_tiles.index(2 * stage + side))
            tma.store_wait(0)
        if c < last_chunk:
            there = full.index(stage)
            mbarrier.expect(there, 2 * (2 * Q * P + 2 * Q * N))
            tma.async_copy_global_to_shared(B_rows, [c * Q, g * N], there, B_tiles.index(stage))
            tma.async_copy_global_to_shared(C_rows, [c * Q, g * N], there, C_tiles.index(stage))
            own = decays + ((b.to(gl.int64) * nheads + h) * nchunks + c) * Q
            for side in gl.static_range(2):
                place = [c * Q, (h + side) * P]
                tma.async_copy_global_to_shared(x_rows, place, there, x_tiles.index(2 * stage + side))
                for k in gl.static_range(3):
                    of_plane = own + side * nchunks * Q + (k + k // 2) * plane
                    async_copy.async_copy_global_to_shared(
                        vectors.index(6 * stage + 3 * side + k), of_plane + positions
                    )
            if DOCUMENTS:
                of_chunk = seq_idx + first + c * Q
                there_too = positions < seqlen - c * Q
                async_copy.async_copy_global_to_shared(documents.index(stage), of_chunk + positions, there_too)
            async_copy.mbarrier_arrive(there, increment_count=False)
