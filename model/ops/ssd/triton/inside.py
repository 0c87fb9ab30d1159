"""The gradients inside a chunk, given that of the state after it."""

import triton
import triton.language as tl

from model.ops.ssd.triton.parts import documents, dot, load_tile, store_tile


@triton.jit
def inside(
    dy, x, decays, plane, B, C, D, seq_idx, d_states, made, dx, dB, dC, shares, dD,
    seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    SKIP: tl.constexpr, DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """A chunk's dx, for some heads of a group, and what is added to their dB and dC. Matrices are (update m, output l).

    The gradient of B C^T, which all heads of a group share, is summed over these heads before it is multiplied with B
    and C; then that is added to what `through` has made. `shares` gets the shares of the loss of what outputs read of
    updates inside the chunk, by output less by update, and of what updates do to the chunk's end; and the gradient of
    each step size but for the decays. An output's own update has no decay on its way: it is kept apart.
    """
    here, b = tl.program_id(0) // 2, tl.program_id(2)
    c, count = first_chunk + here, tl.num_programs(0) // 2
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
    own_score = tl.sum(tl.where(rows == columns, scores, 0.0), 1)
    seen = rows < columns
    if DOCUMENTS:
        document, last, _ = documents(seq_idx + b.to(tl.int64) * seqlen, c * Q, Q, seqlen)
        seen = seen & (document[:, None] == document[None, :])

    later, own = tl.zeros((Q, Q), tl.float32), tl.zeros((Q,), tl.float32)
    for i in tl.range(0, tl.minimum(heads, heads_of_group - split * heads), num_stages=STAGES):
        h = g * heads_of_group + split * heads + i
        chunk, around = (b * nchunks + c) * nheads + h, (b * count + here) * nheads + h
        of_head = (b.to(tl.int64) * nheads + h) * nchunks * Q + c * Q + positions
        own_decays = decays + of_head
        step, through = tl.load(own_decays), tl.load(own_decays + plane)
        after = tl.load(own_decays + plane + plane)
        to_end = tl.exp2(after)
        if DOCUMENTS:
            to_end = tl.where(document == last, to_end, 0.0)
        xs = load_tile(x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        dys = load_tile(dy, first, left, positions, nheads * headdim, h * headdim, p, headdim)
        d_state = tl.load(d_states + around * size + square, mask=inside, other=0.0).to(DOT)

        between = tl.exp2(tl.where(seen, through[None, :] - through[:, None], float("-inf")))
        products = dot(xs.to(DOT), tl.trans(dys.to(DOT)), PRECISION)
        own_product = tl.sum(tl.where(rows == columns, products, 0.0), 1)
        own += own_product * step
        decayed = products * between
        later += decayed * step[:, None]
        share = scores * decayed
        of_updates = tl.sum(share, 1)
        of_outputs = tl.sum(share * step[:, None], 0)
        d_update = dot(Bs, tl.trans(d_state), PRECISION) * to_end[:, None]
        at_end = tl.sum(d_update * xs.to(tl.float32), 1)
        d_update = dot((scores * between).to(DOT), dys.to(DOT), PRECISION, d_update)

        place = shares + of_head
        tl.store(place, of_outputs - of_updates * step)
        tl.store(place + plane, at_end * step)
        tl.store(place + 2 * plane, of_updates + at_end + own_score * own_product)
        direct = own_score * step
        if SKIP:
            direct += tl.load(D + h).to(tl.float32)
            tl.store(dD + chunk, tl.sum(own_product))
        d_x = d_update * step[:, None] + direct[:, None] * dys.to(tl.float32)
        store_tile(dx, d_x, first, left, positions, nheads * headdim, h * headdim, p, headdim)
    later += tl.where(rows == columns, own[:, None], 0.0)
    later = later.to(DOT)
    while tl.atomic_add(made + (b * count + here) * tl.num_programs(1) + tl.program_id(1), 0, sem="acquire") == 0:
        pass
    out = (split * tl.num_programs(2) + b).to(tl.int64) * out_rows + (c - out_chunk) * Q
    Cs = load_tile(C, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    dB_sum = load_tile(dB, out, left, positions, ngroups * dstate, g * dstate, n, dstate).to(tl.float32)
    dB_sum = dot(later, Cs, PRECISION, dB_sum)
    store_tile(dB, dB_sum, out, left, positions, ngroups * dstate, g * dstate, n, dstate)
    Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    dC_sum = load_tile(dC, out, left, positions, ngroups * dstate, g * dstate, n, dstate).to(tl.float32)
    dC_sum = dot(tl.trans(later), Bs, PRECISION, dC_sum)
    store_tile(dC, dC_sum, out, left, positions, ngroups * dstate, g * dstate, n, dstate)
