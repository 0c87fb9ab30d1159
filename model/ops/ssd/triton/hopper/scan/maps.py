"""The warps that make the maps from a chunk's updates to its outputs."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, warpgroup_mma_wait

from model.ops.ssd.triton.hopper.parts import exp2, product


@gluon.jit
def maps(
    seq_idx, B_tiles, C_tiles, vectors, handed, full, empty, made, taken, b, first_chunk, last_chunk, seqlen,
    Q: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The map (update m, output l) of each chunk and head, into `handed`."""
    square: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q, 16])
    of_m: gl.constexpr = gl.SliceLayout(1, square)
    of_l: gl.constexpr = gl.SliceLayout(0, square)
    update, output = gl.arange(0, Q, layout=of_m), gl.arange(0, Q, layout=of_l)
    of_row = seq_idx
    if DOCUMENTS:
        of_row = seq_idx + b.to(gl.int64) * seqlen
    for c in range(first_chunk, last_chunk):
        i = c - first_chunk
        stage, turn = i % STAGES, i % 2
        seen = update[:, None] <= output[None, :]
        if DOCUMENTS:
            of_update = gl.load(of_row + gl.minimum(c * Q + update, seqlen - 1))
            of_output = gl.load(of_row + gl.minimum(c * Q + output, seqlen - 1))
            seen = seen & (of_update[:, None] == of_output[None, :])
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        fence_async_shared()
        scores = product(B_tiles.index(stage), C_tiles.index(stage).permute((1, 0)), Q, Q, square)
        scores = warpgroup_mma_wait(0, deps=(scores,))
        for side in gl.static_range(2):
            step, through = vectors.index(6 * stage + 3 * side).load(of_m), vectors.index(6 * stage + 3 * side + 1)
            between = gl.where(seen, through.load(of_l)[None, :] - through.load(of_m)[:, None], float("-inf"))
            own_map = (scores * exp2(between) * step[:, None]).to(gl.bfloat16)
            place = 2 * turn + side
            mbarrier.wait(taken.index(place), ((i // 2) & 1) ^ 1)
            handed.index(place).store(own_map)
            fence_async_shared()
            mbarrier.arrive(made.index(place))
        mbarrier.arrive(empty.index(stage))
