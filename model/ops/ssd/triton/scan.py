"""The outputs."""

import triton
import triton.language as tl

from model.ops._launch import Launched
from model.ops.ssd.triton.parts import AHEAD, documents, dot, hint_tile, load_tile, store_tile


@Launched
@triton.jit
def scan_kernel(
    x, decays, plane: tl.int64, B, C, D, seq_idx, start, local, decay, y, starts, final,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, nchunks, chunks_of_start, nstarts,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    SKIP: tl.constexpr, DOCUMENTS: tl.constexpr, START: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    HOPPER: tl.constexpr,
):  # fmt: skip
    """A segment's outputs, every `chunks_of_start` a state for the backward, and from the last segment the final state.

    Outputs are made transposed, (headdim, positions): the state then multiplies C from registers, and x out of shared
    memory as it was loaded.
    """
    h, b, s = tl.program_id(0), tl.program_id(1) // nsegments, tl.program_id(1) % nsegments
    g = h // (nheads // ngroups)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    rows, columns = positions[:, None], positions[None, :]
    square = p[:, None] * dstate + n[None, :]
    inside = (p[:, None] < headdim) & (n[None, :] < dstate)
    size = tl.full((), headdim * dstate, tl.int64)
    of_head = decays + (b.to(tl.int64) * nheads + h) * nchunks * Q
    skip = 0.0
    if SKIP:
        skip = tl.load(D + h).to(tl.float32)

    state = tl.zeros((P, N), tl.float32)
    if START:
        state += tl.load(start + (b * nheads + h) * size + square, mask=inside, other=0.0).to(tl.float32)
    for i in range(0, s * parts):
        other = (b * (nsegments - 1) * parts + i) * nheads + h
        state = state * tl.load(decay + other) + tl.load(local + other * size + square, mask=inside, other=0.0)

    first_chunk = s * parts * chunks_of_part
    # What a chunk wants of the decays is on its way while the one before is worked on, and a chunk's outputs are stored
    # while the next one's tiles are on theirs
    own, ends = of_head + positions, of_head + plane + Q - 1
    next_step, next_through = tl.load(own + first_chunk * Q), tl.load(own + plane + first_chunk * Q)
    next_weight, next_across = tl.load(own + 3 * plane + first_chunk * Q), tl.load(ends + first_chunk * Q)
    late, late_first, late_left = tl.zeros((P, Q), y.dtype.element_ty), first_chunk.to(tl.int64), 0
    last_chunk = tl.minimum(first_chunk + parts * chunks_of_part, nchunks)
    for start_chunk in range(first_chunk, last_chunk, chunks_of_start):
        place = starts + ((b * nstarts + start_chunk // chunks_of_start) * nheads + h) * size
        tl.store(place + square, state, mask=inside)
        for c in range(start_chunk, tl.minimum(start_chunk + chunks_of_start, last_chunk)):
            store_tile(y, tl.trans(late), late_first, late_left, positions, nheads * headdim, h * headdim, p, headdim)
            first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
            step, through, weight = next_step, next_through, next_weight
            from_start, across = tl.exp2(through), tl.exp2(next_across)
            ahead = tl.minimum(c + 1, nchunks - 1) * Q
            next_step, next_through = tl.load(own + ahead), tl.load(own + plane + ahead)
            next_weight, next_across = tl.load(own + 3 * plane + ahead), tl.load(ends + ahead)
            if HOPPER:
                far = tl.minimum(c + AHEAD, nchunks - 1) * Q
                far_first, far_left = b.to(tl.int64) * seqlen + far, seqlen - far
                hint_tile(x, far_first, far_left, positions, nheads * headdim, h * headdim, headdim, P)
            seen = rows <= columns
            if DOCUMENTS:
                document, last, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
                from_start = tl.where(document == before, from_start, 0.0)
                weight = tl.where(document == last, weight, 0.0)
                across = tl.where(last == before, across, 0.0)
                seen = seen & (document[:, None] == document[None, :])
            xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
            Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
            Cs = load_tile(C, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
            between = tl.exp2(tl.where(seen, through[None, :] - through[:, None], float("-inf"))) * step[:, None]
            scores = (dot(Bs, tl.trans(Cs), PRECISION) * between).to(DOT)
            out = dot(state.to(DOT), tl.trans(Cs), PRECISION) * from_start[None, :]
            out = dot(tl.trans(xs).to(DOT), scores, PRECISION, out)
            turned = tl.trans(xs).to(tl.float32)
            if SKIP:
                out += skip * turned
            late, late_first, late_left = out.to(y.dtype.element_ty), first, left
            state = dot((turned * weight[None, :]).to(DOT), Bs, PRECISION, state * across)
    store_tile(y, tl.trans(late), late_first, late_left, positions, nheads * headdim, h * headdim, p, headdim)
    if s == nsegments - 1:
        tl.store(final + (b * nheads + h) * size + square, state, mask=inside)
