"""The gradients of a chunk through the states around it."""

import triton
import triton.language as tl

from model.ops.ssd.triton.parts import documents, dot, load_tile, store_tile


@triton.jit
def through(
    dy, x, decays, plane, B, C, seq_idx, states, d_states, made, dB, dC, shares, d_across,
    seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A chunk's dB and dC through the states before and after it, for some heads of a group; `made` says when.

    They go to `out_rows` rows for each split and row of the batch, of which the first is that of `out_chunk`. `shares`
    gets the share of the loss of what each output reads of the state, `d_across` that of what the state before the
    chunk is after it.
    """
    here, b = tl.program_id(0) // 2, tl.program_id(2)
    c, count = first_chunk + here, tl.num_programs(0) // 2
    g, split = tl.program_id(1) // nsplits, tl.program_id(1) % nsplits
    heads_of_group = nheads // ngroups
    heads = tl.cdiv(heads_of_group, nsplits)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    square = p[:, None] * dstate + n[None, :]
    inside = (p[:, None] < headdim) & (n[None, :] < dstate)
    size = tl.full((), headdim * dstate, tl.int64)
    first, left = b.to(tl.int64) * seqlen + c * Q, seqlen - c * Q
    Cs = load_tile(C, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    if DOCUMENTS:
        document, last, before = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
    dB_sum, dC_sum = tl.zeros((Q, N), tl.float32), tl.zeros((Q, N), tl.float32)
    for i in range(0, tl.minimum(heads, heads_of_group - split * heads)):
        h = g * heads_of_group + split * heads + i
        chunk, around = (b * nchunks + c) * nheads + h, (b * count + here) * nheads + h
        of_head = (b.to(tl.int64) * nheads + h) * nchunks * Q + c * Q
        own_decays = decays + of_head + positions
        from_start, weight = tl.exp2(tl.load(own_decays + plane)), tl.load(own_decays + 3 * plane)
        across = tl.exp2(tl.load(decays + of_head + plane + Q - 1))
        if DOCUMENTS:
            from_start = tl.where(document == before, from_start, 0.0)
            weight = tl.where(document == last, weight, 0.0)
            across = tl.where(last == before, across, 0.0)
        dys = load_tile(dy, first, left, positions, nheads * headdim, h * headdim, p, headdim).to(tl.float32)
        state = tl.load(states + around * size + square, mask=inside, other=0.0).to(DOT)
        scaled = dys * from_start[:, None]
        dC_sum = dot(scaled.to(DOT), state, PRECISION, dC_sum)
        share = tl.sum(dot(Cs, tl.trans(state), PRECISION) * scaled, 1)
        tl.store(shares + 3 * plane + of_head + positions, share)

        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim).to(tl.float32)
        d_state = tl.load(d_states + around * size + square, mask=inside, other=0.0).to(DOT)
        dB_sum = dot((xs * weight[:, None]).to(DOT), d_state, PRECISION, dB_sum)
        # In bf16 the states stay in shared memory, at the price of a product of which only the trace is used; in fp32
        # there is no room for them in each layout
        if DOT == tl.bfloat16:  # noqa: SIM300
            kept = tl.where(p[:, None] == p[None, :], dot(state, tl.trans(d_state), PRECISION), 0.0)
        else:
            kept = state * d_state
        tl.store(d_across + chunk, tl.sum(kept) * across)
    out = (split * tl.num_programs(2) + b).to(tl.int64) * out_rows + (c - out_chunk) * Q
    store_tile(dB, dB_sum, out, left, positions, ngroups * dstate, g * dstate, n, dstate)
    store_tile(dC, dC_sum, out, left, positions, ngroups * dstate, g * dstate, n, dstate)
    tl.debug_barrier()
    tl.atomic_xchg(made + (b * count + here) * tl.num_programs(1) + tl.program_id(1), 1, sem="release")
