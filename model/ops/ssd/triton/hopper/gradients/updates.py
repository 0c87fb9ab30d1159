"""The warps that make the gradient of the updates."""

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
def updates(
    dx, shares, plane, D, dD, seq_idx, x_tiles, dy_tiles, B_tile, C_tile, handed, sums, of_updates, own,
    vectors, after, ready, full, empty, made, ended, finished, first_head, count, b, c, seqlen, nheads, nchunks,
    Q: gl.constexpr, P: gl.constexpr, SKIP: gl.constexpr, DOCUMENTS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """dx, and dD of the chunk; `own`, what each output's own update adds to the gradient of B C^T.

    `shares` gets the shares of the loss of what outputs read of updates, by output less by update, those of what
    updates do to the chunk's end, and the gradient of each step size but for the decays.
    """
    narrow: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, P, 16])
    square: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, Q, 16])
    of_x: gl.constexpr = gl.SliceLayout(1, narrow)
    even: gl.constexpr = gl.BlockedLayout([1, 8], [256 // P, P // 8], [4, 1], [1, 0])
    m = gl.arange(0, Q, layout=of_x)
    document, last = m, 0
    if DOCUMENTS:
        of_row = seq_idx + b.to(gl.int64) * seqlen
        document = gl.load(of_row + gl.minimum(c * Q + m, seqlen - 1))
        last, _ = edges(of_row, c * Q, Q, seqlen)
    mbarrier.wait(ready, 0)
    fence_async_shared()
    scores = product(B_tile, C_tile.permute((1, 0)), Q, Q, square)
    update, output = (
        gl.arange(0, Q, layout=gl.SliceLayout(1, square)),
        gl.arange(0, Q, layout=gl.SliceLayout(0, square)),
    )
    own_score = gl.where(update[:, None] == output[None, :], warpgroup_mma_wait(0, deps=(scores,)), 0.0)
    own_score = gl.convert_layout(gl.sum(own_score, 1), of_x)
    rows, p = gl.arange(0, Q, layout=gl.SliceLayout(1, even)), gl.arange(0, P, layout=gl.SliceLayout(0, even))
    there = (rows[:, None] < seqlen - c * Q) & (p[None, :] < P)
    first = b.to(gl.int64) * seqlen + c * Q
    of_shares = shares + (b.to(gl.int64) * nheads + first_head) * nchunks * Q + c * Q
    on_diagonal, late = gl.zeros([Q], gl.float32, of_x), gl.zeros([Q], gl.float32, of_x)
    for i in range(0, count):
        h, stage, turn = first_head + i, i % STAGES, i % 2
        mbarrier.wait(full.index(stage), (i // STAGES) & 1)
        fence_async_shared()
        x_tile, dy_tile, d_state = x_tiles.index(stage), dy_tiles.index(stage), after.index(stage)
        next_update = product(B_tile, d_state.permute((1, 0)), Q, P, narrow)
        mbarrier.arrive(ended.index(turn))
        skip = 0.0
        if SKIP:
            skip = gl.load(D + h).to(gl.float32)
        step, to_end = vectors.index(4 * stage).load(of_x), exp2(vectors.index(4 * stage + 2).load(of_x))
        if DOCUMENTS:
            to_end = gl.where(document == last, to_end, 0.0)
        xs = x_tile.load(narrow).to(gl.float32)
        own_product = gl.sum(xs * dy_tile.load(narrow).to(gl.float32), 1)
        on_diagonal += own_product * step
        d_update = warpgroup_mma_wait(0, deps=(next_update,)) * to_end[:, None]
        at_end = gl.sum(d_update * xs, 1)
        mbarrier.wait(made.index(turn), (i // 2) & 1)
        next_update = warpgroup_mma(handed.index(turn), dy_tile, d_update, is_async=True)
        gl.store(of_shares + plane + i * nchunks * Q + m, at_end * step)
        if SKIP:
            gl.store(dD + (b * nchunks + c) * nheads + h, gl.sum(own_product, 0))
        if i > 0:  # `maps` is done with the head before
            _store(of_shares + (i - 1) * nchunks * Q, plane, late, sums.index(1 - turn), of_updates, 1 - turn, of_x, Q)
        late = at_end + own_score * own_product
        dys = dy_tile.load(narrow).to(gl.float32)
        d_update = warpgroup_mma_wait(0, deps=(next_update,))
        mbarrier.arrive(empty.index(stage))
        d_x = d_update * step[:, None] + (own_score * step + skip)[:, None] * dys
        of_heads = here(nheads) * P
        place = first * of_heads + h * P + (rows[:, None] * of_heads + p[None, :])
        gl.store(dx + place, gl.convert_layout(d_x.to(dx.dtype.element_ty), even), mask=there)
    own.store(on_diagonal)
    mbarrier.arrive(ended.index(count % 2))
    mbarrier.wait(finished, 0)
    turn = (count - 1) % 2
    _store(of_shares + (count - 1) * nchunks * Q, plane, late, sums.index(turn), of_updates, turn, of_x, Q)


@gluon.jit
def _store(place, plane, late, sums, of_updates, turn, of_x: gl.constexpr, Q: gl.constexpr):
    """A head's shares, what `maps` has of them added up."""
    split: gl.constexpr = gl.BlockedLayout([8, 1], [2, 16], [1, 4], [0, 1])
    of_outputs: gl.constexpr = gl.SliceLayout(0, split)
    less = of_updates.index(2 * turn + 1).load(of_outputs)
    gl.store(place + gl.arange(0, Q, layout=of_outputs), gl.sum(sums.load(split), 0) - less)
    gl.store(place + 2 * plane + gl.arange(0, Q, layout=of_x), late + of_updates.index(2 * turn).load(of_x))
