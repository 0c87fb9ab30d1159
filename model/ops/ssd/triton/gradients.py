"""The gradients of a chunk, given the states around it: those inside the chunk, and those through the states."""

import triton
import triton.language as tl

from model.ops._launch import Launched
from model.ops.ssd.triton.inside import inside
from model.ops.ssd.triton.parts import INTERPRETED
from model.ops.ssd.triton.plan import MULTIPROCESSORS
from model.ops.ssd.triton.through import through

TURN = tl.constexpr(2**30 if INTERPRETED.value else MULTIPROCESSORS)
"""Multiprocessors take one program each, then another. The interpreter has no second."""


@Launched
@triton.jit
def gradients_kernel(
    dy, x, decays, plane: tl.int64, B, C, D, seq_idx, states, d_states, made, dx, dB, dC, shares, dD, d_across,
    seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
    headdim: tl.constexpr, dstate: tl.constexpr, Q: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    SKIP: tl.constexpr, DOCUMENTS: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Of a chunk and some heads of a group, for each program that goes `through` the states one that stays `inside`.

    Side by side they share what they read, and wait for different things; TURN gives each multiprocessor one of either
    kind. The second adds to what the first has made: it waits for a neighbour, and programs begin in their order.
    """
    of_slice = tl.program_id(1) + tl.program_id(2) * tl.num_programs(1)
    program = tl.program_id(0) + of_slice * tl.num_programs(0)
    if (program + program // TURN) % 2 == 0:
        through(
            dy, x, decays, plane, B, C, seq_idx, states, d_states, made, dB, dC, shares, d_across,
            seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
            headdim, dstate, Q, P, N, DOCUMENTS, DOT, PRECISION,
        )  # fmt: skip
    else:
        inside(
            dy, x, decays, plane, B, C, D, seq_idx, d_states, made, dx, dB, dC, shares, dD,
            seqlen, nheads, ngroups, nchunks, nsplits, first_chunk, out_rows, out_chunk,
            headdim, dstate, Q, P, N, SKIP, DOCUMENTS, DOT, PRECISION, STAGES,
        )  # fmt: skip


@Launched
@triton.jit
def sum_splits_kernel(
    split_dB, split_dC, dB, dC, nsplits, split_rows, all_rows, first_row, rows, width: tl.constexpr, T: tl.constexpr
):
    """The sums over splits (s, b, split_rows, width) of some `rows`, into those of dB and dC from `first_row` on."""
    i, b = tl.program_id(0) * T + tl.arange(0, T), tl.program_id(1)
    there = i < rows * width
    source = (split_dB if tl.program_id(2) == 0 else split_dC) + b.to(tl.int64) * split_rows * width + i
    total, of_batch = tl.zeros((T,), tl.float32), tl.full((), split_rows * width, tl.int64)
    for s in range(0, nsplits):
        total += tl.load(source + s * tl.num_programs(1) * of_batch, mask=there, other=0.0)
    target = dB if tl.program_id(2) == 0 else dC
    place = target + (b.to(tl.int64) * all_rows + first_row) * width + i
    tl.store(place, total.to(target.dtype.element_ty), mask=there)
