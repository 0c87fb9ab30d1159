"""The warps that load."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier

from model.ops.ssd.triton.hopper.parts import here


@gluon.jit
def load(
    x, y, B, C, decays, plane, seq_idx, x_tiles, B_tiles, C_tiles, vectors, documents, full, empty, h, b, g,
    first_chunk, last_chunk, seqlen, nheads, ngroups, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """For each chunk B and C; and of both heads x, and the planes of decays that outputs want: step sizes, from the
    chunk's start, weights of updates. In the place of x the outputs come back, and are stored.
    """
    narrow: gl.constexpr = gl.BlockedLayout([1, 8], [256 // P, P // 8], [4, 1], [1, 0])
    wide: gl.constexpr = gl.BlockedLayout([1, 8], [256 // N, N // 8], [4, 1], [1, 0])
    rows, n = gl.arange(0, Q, layout=gl.SliceLayout(1, wide)), gl.arange(0, N, layout=gl.SliceLayout(0, wide))
    rows_of_x, p = gl.arange(0, Q, layout=gl.SliceLayout(1, narrow)), gl.arange(0, P, layout=gl.SliceLayout(0, narrow))
    positions = gl.arange(0, Q, layout=gl.BlockedLayout([1], [32], [4], [0]))
    for c in range(first_chunk, last_chunk + STAGES):
        i = c - first_chunk
        stage = i % STAGES
        of_heads = here(nheads) * P
        at = rows_of_x[:, None] * of_heads + p[None, :]
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        if i >= STAGES:
            left = seqlen - (c - STAGES) * Q
            place = y + (b.to(gl.int64) * seqlen + (c - STAGES) * Q) * of_heads + h * P
            for side in gl.static_range(2):
                tile = x_tiles.index(2 * stage + side).load(narrow)
                gl.store(place + side * P + at, tile, mask=rows_of_x[:, None] < left)
        if c < last_chunk:
            first, left = b.to(gl.int64) * seqlen + c * Q, seqlen - c * Q
            of_groups = here(ngroups) * N
            place = first * of_groups + g * N
            of_group = rows[:, None] * of_groups + n[None, :]
            there = (rows[:, None] < left) & (n[None, :] < N)
            async_copy.async_copy_global_to_shared(B_tiles.index(stage), B + place + of_group, there)
            async_copy.async_copy_global_to_shared(C_tiles.index(stage), C + place + of_group, there)
            there = (rows_of_x[:, None] < left) & (p[None, :] < P)
            place = first * of_heads + h * P
            own = decays + ((b.to(gl.int64) * nheads + h) * nchunks + c) * Q
            for side in gl.static_range(2):
                async_copy.async_copy_global_to_shared(
                    x_tiles.index(2 * stage + side), x + place + side * P + at, there
                )
                for k in gl.static_range(3):
                    of_plane = own + side * nchunks * Q + (k + k // 2) * plane
                    async_copy.async_copy_global_to_shared(
                        vectors.index(6 * stage + 3 * side + k), of_plane + positions
                    )
            if DOCUMENTS:
                async_copy.async_copy_global_to_shared(
                    documents.index(stage), seq_idx + first + positions, positions < left
                )
            async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
