"""The outputs."""

import triton
import triton.language as tl

from model.ops.ssd.triton.parts import documents, dot, load_tile, store_tile


@triton.jit
def scan_kernel(
    x, decays, plane, B, C, D, seq_idx, start, local, decay, y, starts, final,
    seqlen, nheads, ngroups, nsegments, chunks_of_segment, nchunks,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    SKIP: tl.constexpr, DOCUMENTS: tl.constexpr, START: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A segment's outputs, its start state for the backward, and from the last segment the final state."""
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
    for i in range(0, s):
        other = (b * nsegments + i) * nheads + h
        state = state * tl.load(decay + other) + tl.load(local + other * size + square, mask=inside, other=0.0)
    tl.store(starts + ((b * nsegments + s) * nheads + h) * size + square, state, mask=inside)

    first_chunk = s * chunks_of_segment
    for c in range(first_chunk, tl.minimum(first_chunk + chunks_of_segment, nchunks)):
        first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
        step, through = tl.load(of_head + c * Q + positions), tl.load(of_head + plane + c * Q + positions)
        after = tl.load(of_head + plane + plane + c * Q + positions)
        across = tl.exp2(tl.load(of_head + plane + c * Q + Q - 1))
        from_start, to_end = tl.exp2(through), tl.exp2(after) * step
        seen = columns <= rows
        if DOCUMENTS:
            document, last, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
            from_start = tl.where(document == before, from_start, 0.0)
            to_end = tl.where(document == last, to_end, 0.0)
            across = tl.where(last == before, across, 0.0)
            seen = seen & (document[:, None] == document[None, :])
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
        Cs = load_tile(C, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
        between = tl.exp2(tl.where(seen, through[:, None] - through[None, :], float("-inf"))) * step[None, :]
        scores = dot(Cs, tl.trans(Bs), PRECISION) * between
        out = dot(Cs, tl.trans(state.to(DOT)), PRECISION) * from_start[:, None]
        out += dot(scores.to(DOT), xs.to(DOT), PRECISION)
        if SKIP:
            out += skip * xs.to(tl.float32)
        store_tile(y, out, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        weighted = (xs.to(tl.float32) * to_end[:, None]).to(DOT)
        state = state * across + dot(tl.trans(weighted), Bs, PRECISION)
    if s == nsegments - 1:
        tl.store(final + (b * nheads + h) * size + square, state, mask=inside)
