"""The warps that load."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import async_copy, mbarrier


@gluon.jit
def load(
    x, y, B, C, decays, plane, x_tiles, B_tiles, C_tiles, vectors, full, empty, h, b, g, first_chunk, last_chunk,
    seqlen, nheads, ngroups, nchunks,
    Q: gl.constexpr, P: gl.constexpr, N: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """For each chunk B and C; and of both heads x, and the planes of decays that outputs want."""
    narrow: gl.constexpr = gl.BlockedLayout([1, 8], [256 // P, P // 8], [4, 1], [1, 0])
    wide: gl.constexpr = gl.BlockedLayout([1, 8], [256 // N, N // 8], [4, 1], [1, 0])
    rows, n = gl.arange(0, Q, layout=gl.SliceLayout(1, wide)), gl.arange(0, N, layout=gl.SliceLayout(0, wide))
    rows_of_x, p = gl.arange(0, Q, layout=gl.SliceLayout(1, narrow)), gl.arange(0, P, layout=gl.SliceLayout(0, narrow))
    of_group, of_head = rows[:, None] * (ngroups * N) + n[None, :], rows_of_x[:, None] * (nheads * P) + p[None, :]
    positions = gl.arange(0, Q, layout=gl.BlockedLayout([1], [32], [4], [0]))
    of_decays = decays + (b.to(gl.int64) * nheads + h) * nchunks * Q + positions
    for c in range(first_chunk, last_chunk + STAGES):
        i = c - first_chunk
        stage = i % STAGES
        mbarrier.wait(empty.index(stage), ((i // STAGES) & 1) ^ 1)
        if i >= STAGES:
            for side in gl.static_range(2):
                place = (b.to(gl.int64) * seqlen + (c - STAGES) * Q) * (nheads * P) + (h + side) * P + of_head
                there = rows_of_x[:, None] < seqlen - (c - STAGES) * Q
                gl.store(y + place, x_tiles.index(2 * stage + side).load(narrow), mask=there)
        if c < last_chunk:
          first, left = b.to(gl.int64) * seqlen + c * Q, seqlen - c * Q
          there = (rows[:, None] < left) & (n[None, :] < N)
          place = first * (ngroups * N) + g * N + of_group
          async_copy.async_copy_global_to_shared(B_tiles.index(stage), B + place, there)
          async_copy.async_copy_global_to_shared(C_tiles.index(stage), C + place, there)
          there = (rows_of_x[:, None] < left) & (p[None, :] < P)
          for side in gl.static_range(2):
              place = first * (nheads * P) + (h + side) * P + of_head
              async_copy.async_copy_global_to_shared(x_tiles.index(2 * stage + side), x + place, there)
              own, at = of_decays + (side * nchunks + c) * Q, 6 * stage + 3 * side
              async_copy.async_copy_global_to_shared(vectors.index(at), own)
              async_copy.async_copy_global_to_shared(vectors.index(at + 1), own + plane)
              async_copy.async_copy_global_to_shared(vectors.index(at + 2), own + 3 * plane)
          async_copy.mbarrier_arrive(full.index(stage), increment_count=False)
