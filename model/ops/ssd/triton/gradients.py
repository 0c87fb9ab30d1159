"""The gradients of a chunk, given the states around it: those inside the chunk, then those through the states."""

import triton
import triton.language as tl

from model.ops._launch import Launched
from model.ops.ssd.triton.parts import documents, dot, load_tile, store_tile


@Launched
@triton.jit
def intra_gradients_kernel(
    dy, x, decays, plane, B, C, D, seq_idx, d_states, dx, d_scores, shares, dD,
    seqlen, nheads, ngroups, nchunks, nsplits, first_chunk,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    SKIP: tl.constexpr, DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, HOPPER: tl.constexpr,
):  # fmt: skip
    """A chunk's dx, for some heads of a group. Matrices are (update m, output l).

    `d_scores` gets the gradient of B C^T, which all heads of a group share, summed over these heads. `shares` gets the
    shares of the loss of what outputs read of updates inside the chunk, by output less by update, and of what updates
    do to the chunk's end; and the gradient of each step size but for the decays. An output's own update has no decay
    on its way: it is kept apart. On Hopper `inter_gradients` may begin where the last programs leave room.
    """
    if HOPPER:
        tl.extra.cuda.gdc_launch_dependents()
    here, b = tl.program_id(0), tl.program_id(2)
    c, count = first_chunk + here, tl.num_programs(0)
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
    for i in range(0, tl.minimum(heads, heads_of_group - split * heads)):
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
        out = d_update * step[:, None] + direct[:, None] * dys.to(tl.float32)
        store_tile(dx, out, first, left, positions, nheads * headdim, h * headdim, p, headdim)
    later += tl.where(rows == columns, own[:, None], 0.0)
    program = (b * count + here) * tl.num_programs(1) + tl.program_id(1)
    matrix = d_scores + program * tl.full((), Q * Q, tl.int64)
    tl.store(matrix + (rows * Q + columns), later.to(d_scores.dtype.element_ty))


@Launched
@triton.jit
def inter_gradients_kernel(
    dy, x, decays, plane, B, C, seq_idx, states, d_states, d_scores, dB, dC, shares, d_across,
    seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, HOPPER: tl.constexpr,
):  # fmt: skip
    """A chunk's dB and dC, for some heads of a group: of `d_scores`, and through the states before and after the chunk.

    They go to `out_rows` rows for each split and row of the batch, of which the first is that of `out_chunk`. `shares`
    gets the share of the loss of what each output reads of the state, `d_across` that of what the state before the
    chunk is after it. On Hopper it may begin before `intra_gradients` ends, of which it reads `d_scores` only.
    """
    here, b = tl.program_id(0), tl.program_id(2)
    c, count = first_chunk + here, tl.num_programs(0)
    g, split = tl.program_id(1) // nsplits, tl.program_id(1) % nsplits
    heads_of_group = nheads // ngroups
    heads = tl.cdiv(heads_of_group, nsplits)
    positions, p, n = tl.arange(0, Q), tl.arange(0, P), tl.arange(0, N)
    rows, columns = positions[:, None], positions[None, :]
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
    if HOPPER:
        tl.extra.cuda.gdc_wait()
    Bs = load_tile(B, first, left, positions, ngroups * dstate, g * dstate, n, dstate).to(DOT)
    program = (b * count + here) * tl.num_programs(1) + tl.program_id(1)
    matrix = d_scores + program * tl.full((), Q * Q, tl.int64)
    dB_sum = dot(tl.load(matrix + (rows * Q + columns)).to(DOT), Cs, PRECISION, dB_sum)
    dC_sum = dot(tl.load(matrix + (columns * Q + rows)).to(DOT), Bs, PRECISION, dC_sum)
    first = (split * tl.num_programs(2) + b).to(tl.int64) * out_rows + (c - out_chunk) * Q
    store_tile(dB, dB_sum, first, left, positions, ngroups * dstate, g * dstate, n, dstate)
    store_tile(dC, dC_sum, first, left, positions, ngroups * dstate, g * dstate, n, dstate)


@Launched
@triton.jit
def sum_splits_kernel(
    split_dB, split_dC, dB, dC, nsplits, split_rows, all_rows, first_row, rows, width: tl.constexpr, T: tl.constexpr
):
    """The sums over splits (s, b, split_rows, width) of some `rows`, into those of dB and dC from `first_row` on."""
    i, b = tl.program_id(0) * T + tl.arange(0, T), tl.program_id(1)
    inside = i < rows * width
    source = (split_dB if tl.program_id(2) == 0 else split_dC) + b.to(tl.int64) * split_rows * width + i
    total, of_batch = tl.zeros((T,), tl.float32), tl.full((), split_rows * width, tl.int64)
    for s in range(0, nsplits):
        total += tl.load(source + s * tl.num_programs(1) * of_batch, mask=inside, other=0.0)
    target = dB if tl.program_id(2) == 0 else dC
    place = target + (b.to(tl.int64) * all_rows + first_row) * width + i
    tl.store(place, total.to(target.dtype.element_ty), mask=inside)
