"""States along a segment, or their gradients backwards."""

import triton
import triton.language as tl

from model.ops.ssd.triton.parts import documents, dot, load_tile


@triton.jit
def states_kernel(
    x, decays, plane, B, seq_idx, start, local, decay, states, final,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, nchunks,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    REVERSE: tl.constexpr, STORE: tl.constexpr, DOCUMENTS: tl.constexpr, START: tl.constexpr, DOT: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A state, chunk by chunk: of x and B forwards, or with REVERSE its gradient, of dy and C backwards.

    Without STORE along a part of a segment, from zero on; `local` gets the result and `decay` what becomes of a state
    across the part. The last segment of the run has no parts, since no segment follows it. With STORE along a segment;
    `states` gets the state before each chunk (in the direction of the run).
    """
    every = (nsegments - 1) * parts
    programs = nsegments if STORE else every
    h, b, k = tl.program_id(0), tl.program_id(1) // programs, tl.program_id(1) % programs
    g = h // (nheads // ngroups)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    square = p[:, None] * dstate + n[None, :]
    inside = (p[:, None] < headdim) & (n[None, :] < dstate)
    size = tl.full((), headdim * dstate, tl.int64)
    of_head = decays + (b.to(tl.int64) * nheads + h) * nchunks * Q

    state = tl.zeros((P, N), tl.float32)
    most, first_chunk = chunks_of_part, k * chunks_of_part
    if STORE:
        most, first_chunk = parts * chunks_of_part, k * parts * chunks_of_part
        if REVERSE:
            if START:
                state += tl.load(start + (b * nheads + h) * size + square, mask=inside, other=0.0).to(tl.float32)
            for i in range(0, every - k * parts):
                other = (b * every + every - 1 - i) * nheads + h
                state = state * tl.load(decay + other) + tl.load(local + other * size + square, mask=inside, other=0.0)
        else:
            state += tl.load(start + ((b * nsegments + k) * nheads + h) * size + square, mask=inside, other=0.0)
    elif REVERSE:
        first_chunk += parts * chunks_of_part
    kept = 1.0
    count = tl.minimum(most, nchunks - first_chunk)
    ends = of_head + plane + Q - 1
    ahead = tl.load(ends + (first_chunk + (count - 1 if REVERSE else 0)) * Q)
    for i in range(0, count):
        c = first_chunk + i
        if REVERSE:
            c = first_chunk + count - 1 - i
        first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
        # The next chunk's decay is on its way while this one is worked on
        across = tl.exp2(ahead)
        if REVERSE:
            ahead = tl.load(ends + tl.maximum(c - 1, 0) * Q)
            weight = tl.exp2(tl.load(of_head + plane + c * Q + positions))
        else:
            ahead = tl.load(ends + tl.minimum(c + 1, nchunks - 1) * Q)
            weight = tl.load(of_head + 3 * plane + c * Q + positions)
        if DOCUMENTS:
            document, last, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
            weight = tl.where(document == (before if REVERSE else last), weight, 0.0)
            across = tl.where(last == before, across, 0.0)
        if STORE:
            place = states + ((b * nchunks + c) * nheads + h) * size + square
            tl.store(place, state.to(states.dtype.element_ty), mask=inside)
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate)
        weighted = (xs.to(tl.float32) * weight[:, None]).to(DOT)
        state = state * across + dot(tl.trans(weighted), Bs.to(DOT), PRECISION)
        kept *= across
    if STORE:
        if k == (0 if REVERSE else nsegments - 1):
            tl.store(final + (b * nheads + h) * size + square, state, mask=inside)
    else:
        own = (b * every + k) * nheads + h
        tl.store(local + own * size + square, state, mask=inside)
        tl.store(decay + own, kept)
