"""States along segments, and their gradients backwards."""

import triton
import triton.language as tl

from model.ops._launch import Launched
from model.ops.ssd.triton.parts import AHEAD, documents, dot, hint_tile, load_tile

FLAGS = tl.constexpr(1024)
"""That are set to zero at once."""


@Launched
@triton.jit
def parts_kernel(
    x, decays, plane: tl.int64, B, seq_idx, local, decay,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, first_chunk, nchunks,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    REVERSE: tl.constexpr, DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    HOPPER: tl.constexpr,
):  # fmt: skip
    """What a part of a segment adds to the state after it, and with REVERSE (of dy and C) to the gradient before it.

    `local` gets that and `decay` what becomes of a state across the part. The last segment of the run has no parts,
    since no segment follows it. Segments begin at `first_chunk`.
    """
    every = (nsegments - 1) * parts
    h, b, k = tl.program_id(0), tl.program_id(1) // every, tl.program_id(1) % every
    first = first_chunk + (k + (parts if REVERSE else 0)) * chunks_of_part
    state = tl.zeros((P, N), tl.float32)
    state, kept = _along(
        x, decays, plane, B, seq_idx, state, state, b, h, first, first, chunks_of_part,
        seqlen, nheads, ngroups, nchunks, headdim, dstate, Q, P, N, REVERSE, False, DOCUMENTS, DOT, PRECISION, HOPPER,
    )  # fmt: skip
    own = (b * every + k) * nheads + h
    size = tl.full((), headdim * dstate, tl.int64)
    square, inside = _square(headdim, dstate, P, N)
    tl.store(local + own * size + square, state, mask=inside)
    tl.store(decay + own, kept)


@Launched
@triton.jit
def states_kernel(
    x, dy, decays, plane: tl.int64, B, C, seq_idx, starts, final, local, decay, states, d_states, d_start, made, nmade,
    seqlen, nheads, ngroups, nsegments, parts, chunks_of_part, first_chunk, nchunks, all_segments,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    HOPPER: tl.constexpr,
):  # fmt: skip
    """Along a segment of a slice, the state before each chunk, or the gradient of the state after it.

    Forwards from the segment's start, backwards from `final`, the gradient of the state after the slice, and from what
    later segments add; `d_start` gets the gradient of the state before the slice. `made` gets the zeros that the next
    kernel wants.
    """
    h, b, k = tl.program_id(0), tl.program_id(1) // nsegments, tl.program_id(1) % nsegments
    chunks = parts * chunks_of_part
    first = first_chunk + k * chunks
    size = tl.full((), headdim * dstate, tl.int64)
    square, inside = _square(headdim, dstate, P, N)
    count = tl.minimum(nsegments * chunks, nchunks - first_chunk)
    own = (b * count * nheads + h) * size + square
    if tl.program_id(2) == 0:
        segment = b * all_segments + first // chunks
        state = tl.load(starts + (segment * nheads + h) * size + square, mask=inside, other=0.0)
        _along(
            x, decays, plane, B, seq_idx, state, states + own, b, h, first, first_chunk, chunks,
            seqlen, nheads, ngroups, nchunks, headdim, dstate, Q, P, N, False, True, DOCUMENTS, DOT, PRECISION, HOPPER,
        )  # fmt: skip
    else:
        state = tl.load(final + (b * nheads + h) * size + square, mask=inside, other=0.0).to(tl.float32)
        every = (nsegments - 1) * parts
        for i in range(0, every - k * parts):
            other = (b * every + every - 1 - i) * nheads + h
            state = state * tl.load(decay + other) + tl.load(local + other * size + square, mask=inside, other=0.0)
        state, _ = _along(
            dy, decays, plane, C, seq_idx, state, d_states + own, b, h, first, first_chunk, chunks,
            seqlen, nheads, ngroups, nchunks, headdim, dstate, Q, P, N, True, True, DOCUMENTS, DOT, PRECISION, HOPPER,
        )  # fmt: skip
        if k == 0:
            tl.store(d_start + (b * nheads + h) * size + square, state, mask=inside)
        if (h == 0) & (tl.program_id(1) == 0):
            for start in range(0, nmade, FLAGS):
                flags = start + tl.arange(0, FLAGS)
                tl.store(made + flags, tl.zeros((FLAGS,), tl.int32), mask=flags < nmade)


@triton.jit
def _square(headdim: tl.constexpr, dstate: tl.constexpr, P: tl.constexpr, N: tl.constexpr):
    """A state's places from its first on, and which are inside."""
    p, n = tl.arange(0, P)[:, None], tl.arange(0, N)[None, :]
    return p * dstate + n, (p < headdim) & (n < dstate)


@triton.jit
def _along(
    x, decays, plane, B, seq_idx, state, states, b, h, first_chunk, origin, most,
    seqlen, nheads, ngroups, nchunks,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    REVERSE: tl.constexpr, STORE: tl.constexpr, DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    HOPPER: tl.constexpr,
):  # fmt: skip
    """The state after at most `most` chunks, and what is left of the one before them.

    With STORE, `states` gets the state before each chunk (in the direction of the run), `origin` the first.
    """
    g = h // (nheads // ngroups)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    size = tl.full((), headdim * dstate, tl.int64)
    _, inside = _square(headdim, dstate, P, N)
    of_head = decays + (b.to(tl.int64) * nheads + h) * nchunks * Q
    kept = 1.0
    count = tl.minimum(most, nchunks - first_chunk)
    # What the next chunk wants of the decays is on its way while this one is worked on
    ends = of_head + plane + Q - 1
    ahead = tl.minimum(first_chunk + (tl.maximum(count, 1) - 1 if REVERSE else 0), nchunks - 1)
    own = of_head + (plane if REVERSE else 3 * plane) + positions
    next_weight, next_across = tl.load(own + ahead * Q), tl.load(ends + ahead * Q)
    for _ in range(0, count):
        c = ahead
        first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
        weight, across = next_weight, tl.exp2(next_across)
        ahead = tl.maximum(c - 1, 0) if REVERSE else tl.minimum(c + 1, nchunks - 1)
        next_weight, next_across = tl.load(own + ahead * Q), tl.load(ends + ahead * Q)
        if REVERSE:
            weight = tl.exp2(weight)
        if DOCUMENTS:
            document, last, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
            weight = tl.where(document == (before if REVERSE else last), weight, 0.0)
            across = tl.where(last == before, across, 0.0)
        if STORE and HOPPER:
            far = (tl.maximum(c - AHEAD, 0) if REVERSE else tl.minimum(c + AHEAD, nchunks - 1)) * Q
            far_first, far_left = b.to(tl.int64) * seqlen + far, seqlen - far
            hint_tile(x, far_first, far_left, positions, nheads * headdim, h * headdim, headdim, P)
        if STORE:
            tl.store(states + (c - origin) * nheads * size, state.to(states.dtype.element_ty), mask=inside)
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate)
        weighted = (xs.to(tl.float32) * weight[:, None]).to(DOT)
        state = state * across + dot(tl.trans(weighted), Bs.to(DOT), PRECISION)
        kept *= across
    return state, kept
