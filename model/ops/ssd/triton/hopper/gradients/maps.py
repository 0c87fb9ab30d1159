"""The warps that make the maps between a chunk's positions."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier, warpgroup_mma_wait

from model.ops.ssd.triton.hopper.parts import exp2, product


@gluon.jit
def maps(
    seq_idx, x_tiles, dy_tiles, B_tile, C_tile, gradient, handed, sums, of_updates, own, vectors,
    ready, full, empty, made, ended, finished, count, b, c, seqlen,
    Q: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The map (update m, output l) of each head, into `handed`; the gradient of B C^T, into `gradient`.

    `sums` and `of_updates` get the shares of the loss of what outputs read of updates, summed over the updates as far
    as that takes no other warp, and over the outputs; the latter with and without the step sizes. An output's own
    update has no decay on its way: `updates` keeps it apart; `own` is what is to stand on the diagonal of `gradient`.
    """
    square: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q, 16])
    of_m: gl.constexpr = gl.SliceLayout(1, square)
    of_l: gl.constexpr = gl.SliceLayout(0, square)
    update, output = gl.arange(0, Q, layout=of_m), gl.arange(0, Q, layout=of_l)
    seen = update[:, None] < output[None, :]
    if DOCUMENTS:
        of_row = seq_idx + b.to(gl.int64) * seqlen
        of_update = gl.load(of_row + gl.minimum(c * Q + update, seqlen - 1))
        of_output = gl.load(of_row + gl.minimum(c * Q + output, seqlen - 1))
        seen = seen & (of_update[:, None] == of_output[None, :])
    mbarrier.wait(ready, 0)
    fence_async_shared()
    scores = product(B_tile, C_tile.permute((1, 0)), Q, Q, square)
    scores = gl.where(seen, warpgroup_mma_wait(0, deps=(scores,)), 0.0)
    later = gl.zeros([Q, Q], gl.float32, square)
    for i in range(0, count):
        stage, turn = i % STAGES, i % 2
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        fence_async_shared()
        products = product(x_tiles.index(stage), dy_tiles.index(stage).permute((1, 0)), Q, Q, square)
        step, decay = vectors.index(4 * stage).load(of_m), vectors.index(4 * stage + 1)
        # What is not seen has a score of 0, and is left out of the gradient at last: it must only be finite, times
        # a product, too. (So where rates are positive, which they are not, growth by more than 2^64 is cut.)
        between = exp2(gl.minimum(decay.load(of_l)[None, :] - decay.load(of_m)[:, None], 64.0))
        handed.index(turn).store((scores * between).to(gl.bfloat16))
        fence_async_shared()
        mbarrier.arrive(made.index(turn))
        products = warpgroup_mma_wait(0, deps=(products,))
        mbarrier.arrive(empty.index(stage))
        decayed = products * between
        later += decayed * step[:, None]
        share = scores * decayed
        own_share = gl.sum(share, 1)
        mbarrier.wait(ended.index(turn), (i // 2) & 1)
        of_updates.index(2 * turn).store(own_share)
        of_updates.index(2 * turn + 1).store(own_share * step)
        two_rows = gl.sum((share * step[:, None]).reshape([Q // 16, 2, 8, Q]), 1)  # a thread's two rows
        sums.index(turn).store(gl.sum(two_rows.reshape([Q // 16, 2, 4, Q]), 1).reshape([Q // 4, Q]))
    mbarrier.wait(ended.index(count % 2), (count // 2) & 1)
    on_diagonal = gl.where(update[:, None] == output[None, :], own.load(of_m)[:, None], 0.0)
    gradient.store(gl.where(seen, later, on_diagonal).to(gl.bfloat16))
    fence_async_shared()
    mbarrier.arrive(finished)
