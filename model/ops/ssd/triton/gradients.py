"""The gradients inside a chunk, given the states around it."""

import triton
import triton.language as tl

from model.ops.ssd.triton.parts import documents, dot, load_tile, store_tile


@triton.jit
def read_gradients_kernel(
    dy, x, decays, plane, B, C, seq_idx, states, dC, shares,
    seqlen, nheads, ngroups, nchunks, nsplits,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a chunk's outputs ask of C, for some heads of a group, and of the decays on the way to each (`shares`)."""
    c, b = tl.program_id(0), tl.program_id(2)
    g, split = tl.program_id(1) // nsplits, tl.program_id(1) % nsplits
    heads_of_group = nheads // ngroups
    heads = tl.cdiv(heads_of_group, nsplits)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    rows, columns = positions[:, None], positions[None, :]
    square = p[:, None] * dstate + n[None, :]
    inside = (p[:, None] < headdim) & (n[None, :] < dstate)
    size = tl.full((), headdim * dstate, tl.int64)
    first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
    Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    Cs = load_tile(C, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    scores = dot(Cs, tl.trans(Bs), PRECISION)
    seen = columns <= rows
    if DOCUMENTS:
        document, _, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
        seen = seen & (document[:, None] == document[None, :])

    dC_sum = tl.zeros((Q, N), tl.float32)
    for i in range(0, tl.minimum(heads, heads_of_group - split * heads)):
        h = g * heads_of_group + split * heads + i
        here = decays + (b.to(tl.int64) * nheads + h) * nchunks * Q + c * Q + positions
        step, through = tl.load(here), tl.load(here + plane)
        from_start = tl.exp2(through)
        if DOCUMENTS:
            from_start = tl.where(document == before, from_start, 0.0)
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim).to(DOT)
        dys = load_tile(dy, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        place = states + ((b * nchunks + c) * nheads + h) * size + square
        state = tl.load(place, mask=inside, other=0.0).to(DOT)

        between = tl.exp2(tl.where(seen, through[:, None] - through[None, :], float("-inf"))) * step[None, :]
        d_scores = dot(dys.to(DOT), tl.trans(xs), PRECISION) * between
        share = tl.sum(tl.where(columns < rows, scores * d_scores, 0.0), 1)
        dC_sum = dot(d_scores.to(DOT), Bs, PRECISION, dC_sum)
        scaled = dys.to(tl.float32) * from_start[:, None]
        dC_sum = dot(scaled.to(DOT), state, PRECISION, dC_sum)
        share += tl.sum(dot(Cs, tl.trans(state), PRECISION) * scaled, 1)
        tl.store(shares + (b.to(tl.int64) * nheads + h) * nchunks * Q + c * Q + positions, share)
    first += split.to(tl.int64) * tl.num_programs(2) * seqlen
    store_tile(dC, dC_sum, first, left, positions, ngroups * dstate, g * dstate, n, dstate)


@triton.jit
def write_gradients_kernel(
    dy, x, decays, plane, B, C, D, seq_idx, d_states, shares, dx, dB, dD,
    seqlen, nheads, ngroups, nchunks, nsplits,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    SKIP: tl.constexpr, DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What a chunk's updates get, for some heads of a group: gradients of x and B. Matrices are (update m, output l).

    And of each update, in `shares`, the shares of the loss of what it does to later outputs and to the chunk's end, and
    the gradient of its step size but for the decays.
    """
    c, b = tl.program_id(0), tl.program_id(2)
    g, split = tl.program_id(1) // nsplits, tl.program_id(1) % nsplits
    heads_of_group = nheads // ngroups
    heads = tl.cdiv(heads_of_group, nsplits)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    rows, columns = positions[:, None], positions[None, :]
    square = p[:, None] * dstate + n[None, :]
    inside = (p[:, None] < headdim) & (n[None, :] < dstate)
    size = tl.full((), headdim * dstate, tl.int64)
    first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
    Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    Cs = load_tile(C, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    scores = dot(Bs, tl.trans(Cs), PRECISION)
    seen = rows <= columns
    if DOCUMENTS:
        document, last, _ = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
        seen = seen & (document[:, None] == document[None, :])

    dB_sum = tl.zeros((Q, N), tl.float32)
    for i in range(0, tl.minimum(heads, heads_of_group - split * heads)):
        h = g * heads_of_group + split * heads + i
        chunk = (b * nchunks + c) * nheads + h
        here = decays + (b.to(tl.int64) * nheads + h) * nchunks * Q + c * Q + positions
        step, through, after = tl.load(here), tl.load(here + plane), tl.load(here + plane + plane)
        to_end = tl.exp2(after)
        if DOCUMENTS:
            to_end = tl.where(document == last, to_end, 0.0)
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        dys = load_tile(dy, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        d_state = tl.load(d_states + chunk * size + square, mask=inside, other=0.0).to(DOT)

        between = tl.exp2(tl.where(seen, through[None, :] - through[:, None], float("-inf")))
        d_scores = dot(xs.to(DOT), tl.trans(dys.to(DOT)), PRECISION) * between * step[:, None]
        share = tl.sum(tl.where(rows < columns, scores * d_scores, 0.0), 1)
        dB_sum = dot(d_scores.to(DOT), Cs, PRECISION, dB_sum)
        weighted = xs.to(tl.float32) * (to_end * step)[:, None]
        dB_sum = dot(weighted.to(DOT), d_state, PRECISION, dB_sum)
        d_update = dot(Bs, tl.trans(d_state), PRECISION) * to_end[:, None]
        end_share = tl.sum(d_update * xs.to(tl.float32), 1) * step
        d_update = dot((scores * between).to(DOT), dys.to(DOT), PRECISION, d_update)

        place = shares + plane + (b.to(tl.int64) * nheads + h) * nchunks * Q + c * Q + positions
        tl.store(place, share)
        tl.store(place + plane, end_share)
        tl.store(place + plane + plane, tl.sum(d_update * xs.to(tl.float32), 1))
        out = d_update * step[:, None]
        if SKIP:
            out += tl.load(D + h).to(tl.float32) * dys.to(tl.float32)
            tl.store(dD + chunk, tl.sum(tl.sum(xs.to(tl.float32) * dys.to(tl.float32), 1), 0))
        store_tile(dx, out, first, left, positions, nheads * headdim, h * headdim, p, headdim)
    first += split.to(tl.int64) * tl.num_programs(2) * seqlen
    store_tile(dB, dB_sum, first, left, positions, ngroups * dstate, g * dstate, n, dstate)
