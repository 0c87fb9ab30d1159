"""The convolution's rows in order: the last W - 1 inputs stay in registers.

Shapes: b batch, l seqlen, d channels; W taps. A program has C channels and `rows` positions of one sequence, from
`first` on; pointers are moved to there, and rows are counted from there. R rows are loaded at once, since the compiler
moves no load before a store.
"""

import triton
import triton.language as tl

from model.ops._launch import Launched


@triton.jit
def row_of(tensor, row, channels, channel, inside):
    return tl.load(tensor + row * channels + channel, mask=inside & (channel < channels), other=0.0)


@triton.jit
def document_of(seq_idx, row, seqlen, DOCUMENTS: tl.constexpr):
    """What is before the first row belongs to its document."""
    document = 0
    if DOCUMENTS:
        document = tl.load(seq_idx + tl.minimum(tl.maximum(row, 0), seqlen - 1))
    return document


@triton.jit
def rows_before(
    x, before, seq_idx, first, seqlen, channels, channel,
    W: tl.constexpr, START: tl.constexpr, DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """The W - 1 rows before the tile, in fp32, and the last one's document; zero where a row is of another one."""
    document, window = document_of(seq_idx, first - 1, seqlen, DOCUMENTS), ()
    for s in tl.static_range(W - 1):
        row = s - (W - 1)
        found = row_of(x, row, channels, channel, first + row >= 0).to(tl.float32)
        if START:
            found += row_of(before, first + s, channels, channel, first + row < 0).to(tl.float32)
        if DOCUMENTS:
            found = tl.where(document_of(seq_idx, first + row, seqlen, DOCUMENTS) == document, found, 0.0)
        window = window + (found,)
    return window, document


@triton.jit
def parameters(weight, bias, channels, channel, W: tl.constexpr, BIAS: tl.constexpr):
    """The taps, the earliest position's first, and the bias."""
    there, taps = channel < channels, ()
    for s in tl.static_range(W):
        taps = taps + (tl.load(weight + channel * W + s, mask=there, other=0.0).to(tl.float32),)
    offset = tl.zeros(channel.shape, tl.float32)
    if BIAS:
        offset += tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)
    return taps, offset


@triton.jit
def nothing(like, W: tl.constexpr):
    empty = ()
    for _ in tl.static_range(W - 1):
        empty = empty + (tl.zeros_like(like),)
    return empty


@Launched
@triton.jit
def forward_kernel(
    x, weight, bias, before, seq_idx, y, seqlen, channels, rows,
    W: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    SILU: tl.constexpr, BIAS: tl.constexpr, START: tl.constexpr, DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """(b, l, d): `rows` positions of C channels."""
    channel, first, b = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(1) * rows, tl.program_id(2).to(tl.int64)
    tile = (b * seqlen + first) * channels
    x, y, before, seq_idx = x + tile, y + tile, before + b * (W - 1) * channels, seq_idx + b * seqlen
    taps, offset = parameters(weight, bias, channels, channel, W, BIAS)
    window, document = rows_before(x, before, seq_idx, first, seqlen, channels, channel, W, START, DOCUMENTS)
    own = tl.minimum(rows, seqlen - first)
    for start in range(0, own, R):
        xs, documents = (), ()
        for r in tl.static_range(R):
            xs = xs + (row_of(x, start + r, channels, channel, start + r < own),)
            documents = documents + (document_of(seq_idx, first + start + r, seqlen, DOCUMENTS),)
        for r in tl.static_range(R):
            if DOCUMENTS:
                if documents[r] != document:
                    window = nothing(offset, W)
                document = documents[r]
            now = xs[r].to(tl.float32)
            out = offset + taps[W - 1] * now
            for s in tl.static_range(W - 1):
                out += taps[s] * window[s]
            if SILU:
                out = out / (1.0 + tl.exp(-out))
            inside = (start + r < own) & (channel < channels)
            tl.store(y + (start + r) * channels + channel, out.to(y.dtype.element_ty), mask=inside)
            window = window[1:] + (now,)


@triton.jit
def store_gradient(dx, d_before, d, row, since, first, own, channels, channel, W: tl.constexpr, START: tl.constexpr):
    """Of a row of the tile or, at the row's start, before it; not of one that a new document has already completed."""
    inside = (channel < channels) & (row >= since)
    tl.store(dx + row * channels + channel, d.to(dx.dtype.element_ty), mask=inside & (row >= 0) & (row < own))
    if START:
        place = d_before + (row + W - 1) * channels + channel
        tl.store(place, d.to(d_before.dtype.element_ty), mask=inside & (row < 0) & (first == 0))


@Launched
@triton.jit
def backward_kernel(
    dy, x, weight, bias, before, seq_idx, dx, d_before, parts, seqlen, channels, rows,
    W: tl.constexpr, C: tl.constexpr, R: tl.constexpr,
    SILU: tl.constexpr, BIAS: tl.constexpr, START: tl.constexpr, DOCUMENTS: tl.constexpr,
):  # fmt: skip
    """The gradient of x, and `parts` (b, tiles, W + 1, d): sums over the program's positions, for weight and bias.

    A row adds to the gradients of the W - 1 before it, which wait in registers and are written W - 1 rows later, or
    where a document ends: the program goes that far into the next one's positions.
    """
    channel, first, b = tl.program_id(0) * C + tl.arange(0, C), tl.program_id(1) * rows, tl.program_id(2).to(tl.int64)
    tile = (b * seqlen + first) * channels
    x, dy, dx, seq_idx = x + tile, dy + tile, dx + tile, seq_idx + b * seqlen
    before, d_before = before + b * (W - 1) * channels, d_before + b * (W - 1) * channels
    taps, offset = parameters(weight, bias, channels, channel, W, BIAS)
    window, document = rows_before(x, before, seq_idx, first, seqlen, channels, channel, W, START, DOCUMENTS)
    waiting, since = nothing(offset, W), -W
    sums = nothing(offset, W) + (tl.zeros_like(offset), tl.zeros_like(offset))
    own = tl.minimum(rows, seqlen - first)
    end = tl.minimum(own + W - 1, seqlen - first)
    for start in range(0, own + W - 1, R):
        xs, dys, documents = (), (), ()
        for r in tl.static_range(R):
            xs = xs + (row_of(x, start + r, channels, channel, start + r < end),)
            dys = dys + (row_of(dy, start + r, channels, channel, start + r < end),)
            documents = documents + (document_of(seq_idx, first + start + r, seqlen, DOCUMENTS),)
        for r in tl.static_range(R):
            row = start + r
            if DOCUMENTS:
                if documents[r] != document:
                    for s in tl.static_range(W - 1):
                        gone = row - (W - 1) + s
                        store_gradient(dx, d_before, waiting[s], gone, since, first, own, channels, channel, W, START)
                    window, since = nothing(offset, W), row
                document = documents[r]
            now, g = xs[r].to(tl.float32), dys[r].to(tl.float32)
            out = offset + taps[W - 1] * now
            for s in tl.static_range(W - 1):
                out += taps[s] * window[s]
            if SILU:
                sigmoid = 1.0 / (1.0 + tl.exp(-out))
                g *= sigmoid * (1.0 + out * (1.0 - sigmoid))
            mine, more, passed = tl.where(row < own, g, 0.0), (), ()
            for s in tl.static_range(W - 1):
                more = more + (sums[s] + mine * window[s],)
                passed = passed + (waiting[s] + taps[s] * g,)
            sums = more + (sums[W - 1] + mine * now, sums[W] + mine)
            done = row - (W - 1)
            store_gradient(dx, d_before, passed[0], done, since, first, own, channels, channel, W, START)
            window, waiting = window[1:] + (now,), passed[1:] + (taps[W - 1] * g,)
    parts += (b * tl.num_programs(1) + tl.program_id(1)) * (W + 1) * channels
    for s in tl.static_range(W + 1):
        tl.store(parts + s * channels + channel, sums[s], mask=channel < channels)
