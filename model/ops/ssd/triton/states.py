"""States along a segment, or their gradients backwards."""

import triton
import triton.language as tl

from model.ops.ssd.triton.parts import documents, dot, load_tile


@triton.jit
def states_kernel(
    x, decays, plane, B, seq_idx, start, local, decay, states, final, d_states, d_across,
    seqlen, nheads, ngroups, nsegments, chunks_of_segment, nchunks,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    REVERSE: tl.constexpr, STORE: tl.constexpr, DOCUMENTS: tl.constexpr, START: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A segment's state, chunk by chunk: of x and B forwards, or with REVERSE its gradient, of dy and C backwards.

    Without STORE from zero on; `local` gets the result and `decay` what becomes of a state across the segment. With
    STORE, `states` gets the state before each chunk (in the direction of the run), and forwards `d_across` the gradient
    of the logarithm of its decay across the chunk.
    """
    h, b, s = tl.program_id(0), tl.program_id(1) // nsegments, tl.program_id(1) % nsegments
    g = h // (nheads // ngroups)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    square = p[:, None] * dstate + n[None, :]
    inside = (p[:, None] < headdim) & (n[None, :] < dstate)
    size = tl.full((), headdim * dstate, tl.int64)
    of_head = decays + (b.to(tl.int64) * nheads + h) * nchunks * Q

    state = tl.zeros((P, N), tl.float32)
    if STORE:
        if REVERSE:
            if START:
                state += tl.load(start + (b * nheads + h) * size + square, mask=inside, other=0.0).to(tl.float32)
            for i in range(0, nsegments - 1 - s):
                other = (b * nsegments + nsegments - 1 - i) * nheads + h
                state = state * tl.load(decay + other) + tl.load(local + other * size + square, mask=inside, other=0.0)
        else:
            state += tl.load(start + ((b * nsegments + s) * nheads + h) * size + square, mask=inside, other=0.0)
    kept = 1.0
    first_chunk = s * chunks_of_segment
    count = tl.minimum(chunks_of_segment, nchunks - first_chunk)
    for i in range(0, count):
        c = first_chunk + i
        if REVERSE:
            c = first_chunk + count - 1 - i
        first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
        step, through = tl.load(of_head + c * Q + positions), tl.load(of_head + plane + c * Q + positions)
        after = tl.load(of_head + plane + plane + c * Q + positions)
        across = tl.exp2(tl.load(of_head + plane + c * Q + Q - 1))
        weight = tl.exp2(through) if REVERSE else tl.exp2(after) * step
        if DOCUMENTS:
            document, last, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
            weight = tl.where(document == (before if REVERSE else last), weight, 0.0)
            across = tl.where(last == before, across, 0.0)
        if STORE:
            chunk = (b * nchunks + c) * nheads + h
            tl.store(states + chunk * size + square, state.to(states.dtype.element_ty), mask=inside)
            if not REVERSE:
                d_state = tl.load(d_states + chunk * size + square, mask=inside, other=0.0).to(tl.float32)
                tl.store(d_across + chunk, tl.sum(tl.sum(state * d_state, 1), 0) * across)
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate)
        weighted = (xs.to(tl.float32) * weight[:, None]).to(DOT)
        state = state * across + dot(tl.trans(weighted), Bs.to(DOT), PRECISION)
        kept *= across
    if STORE:
        if s == (0 if REVERSE else nsegments - 1):
            tl.store(final + (b * nheads + h) * size + square, state, mask=inside)
    else:
        own = (b * nsegments + s) * nheads + h
        tl.store(local + own * size + square, state, mask=inside)
        tl.store(decay + own, kept)
