"""The warps that load."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier

from model.ops.ssd.triton.hopper.parts import BOX, here


@gluon.jit
def load(
    x, dy, B, C, decays, plane, states, d_states, x_tiles, dy_tiles, B_tile, C_tile, vectors, before, after,
    ready, full, empty, first_head, count, b, c, chunk, chunks, g, seqlen, nheads, ngroups, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """B and C of the chunk; then for each head x, dy, both states and the four planes of decays."""
    narrow: gl.constexpr = gl.BlockedLayout([1, 8], [256 // P, P // 8], [4, 1], [1, 0])
    wide: gl.constexpr = gl.BlockedLayout([1, 8], [256 // N, N // 8], [4, 1], [1, 0])
    first, left = b.to(gl.int64) * seqlen + c * Q, seqlen - c * Q
    rows, n = gl.arange(0, Q, layout=gl.SliceLayout(1, wide)), gl.arange(0, N, layout=gl.SliceLayout(0, wide))
    of_group = first * (ngroups * N) + g * N
    place = of_group + (rows[:, None] * (ngroups * N) + n[None, :])
    there = (rows[:, None] < left) & (n[None, :] < N)
    async_copy.async_copy_global_to_shared(C_tile, C + place, there)
    async_copy.async_copy_global_to_shared(B_tile, B + place, there)
    async_copy.mbarrier_arrive(ready, increment_count=False)

    rows, p = gl.arange(0, Q, layout=gl.SliceLayout(1, narrow)), gl.arange(0, P, layout=gl.SliceLayout(0, narrow))
    there = (rows[:, None] < left) & (p[None, :] < P)
    rows_of_state = gl.arange(0, P, layout=gl.SliceLayout(1, wide))
    places = n[None, :] // BOX * (P * BOX) + rows_of_state[:, None] * BOX + n[None, :] % BOX
    positions = gl.arange(0, Q, layout=gl.BlockedLayout([1], [32], [4], [0]))
    for i in range(0, count):
        h, stage = first_head + i, i % STAGES
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        of_heads = here(nheads) * P
        at = rows[:, None] * of_heads + p[None, :]
        of_head = first * of_heads + h * P
        around = ((b * chunks + chunk) * nheads + h).to(gl.int64) * (P * N)
        own_decays = decays + (b.to(gl.int64) * nheads + h) * nchunks * Q + c * Q
        async_copy.async_copy_global_to_shared(x_tiles.index(stage), x + of_head + at, there)
        async_copy.async_copy_global_to_shared(dy_tiles.index(stage), dy + of_head + at, there)
        async_copy.async_copy_global_to_shared(after.index(stage), d_states + around + places)
        for k in gl.static_range(4):
            async_copy.async_copy_global_to_shared(vectors.index(4 * stage + k), own_decays + k * plane + positions)
        async_copy.async_copy_global_to_shared(before.index(stage), states + around + places)
        async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
