"""The warps that make the maps from a chunk's updates to its outputs."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, warpgroup_mma_wait

from model.ops.ssd.triton.hopper.parts import exp2, product


@gluon.jit
def maps(
    B_tiles, C_tiles, vectors, documents, handed, full, empty, made, taken, first_chunk, last_chunk,
    Q: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The map (update m, output l) of each chunk and head, into `handed`."""
    square: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q, 16])
    of_m: gl.constexpr = gl.SliceLayout(1, square)
    of_l: gl.constexpr = gl.SliceLayout(0, square)
    update, output = gl.arange(0, Q, layout=of_m), gl.arange(0, Q, layout=of_l)
    for c in range(first_chunk, last_chunk):
        i = c - first_chunk
        stage, turn = i % STAGES, i % 2
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        scores = product(B_tiles.index(stage), C_tiles.index(stage).permute((1, 0)), Q, Q, square)
        seen = update[:, None] <= output[None, :]
        if DOCUMENTS:
            document = documents.index(stage)
            seen = seen & (document.load(of_m)[:, None] == document.load(of_l)[None, :])
        scores = gl.where(seen, warpgroup_mma_wait(0, deps=(scores,)), 0.0)
        mbarrier.wait(taken.index(turn), ((i // 2) & 1) ^ 1)
        for side in gl.static_range(2):
            step, through = vectors.index(6 * stage + 3 * side).load(of_m), vectors.index(6 * stage + 3 * side + 1)
            # Of scores that are 0, what there is no decay for must only be finite
            between = exp2(gl.minimum(through.load(of_l)[None, :] - through.load(of_m)[:, None], 126.0))
            handed.index(2 * turn + side).store((scores * step[:, None] * between).to(gl.bfloat16))
        fence_async_shared()
        mbarrier.arrive(made.index(turn))
        mbarrier.arrive(empty.index(stage))
