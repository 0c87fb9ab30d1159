"""The SSD in Triton: three launches forward, four and more backward, and no atomic additions.

The sequence is cut into chunks (of Q positions, within which the scan is a masked matrix product) and into segments of
several chunks (one program each, so that a long sequence fills the GPU). A state stays in registers along its segment;
what crosses memory is one state per segment, and in the backward also the states between chunks, in the inputs'
precision. The backward goes through slices of the sequence, the last first, and holds the states of one at a time.

    forward   decays  step sizes and sums of decays
              parts   what each part of a segment contributes to the state after it
              scan    outputs, chunk by chunk, from the state that the segments before leave
    backward, slice by slice
              parts   what each part of a segment contributes to the gradient of the state before it
              states  the state before each chunk, the gradient of the state after it
              intra_gradients  of x, and of C B^T summed over the heads of a group, chunk by chunk
              inter_gradients  of B and C: of that sum, and through the states, the heads of a group in turn
              sum_splits       of those, where few chunks leave the GPU idle and a group's heads are split
    and then  step_gradients   of the step sizes, from what the others say of the decays

Shapes: b batch, c chunks, s segments, k parts of segments, g groups, h heads, p headdim, n dstate; Q positions of a
chunk. Decays are sums of a = dt A, in fp32: of a chunk only, and with a at least -20 (e^-20 is less than fp32
resolves), so that the difference of two sums keeps what lies between them.
"""

from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from model.ops._launch import DEVICE, DTYPE, Remembered, aligned, power_of_2
from model.ops.ssd.triton.decays import decays_kernel, step_gradients_kernel
from model.ops.ssd.triton.gradients import inter_gradients_kernel, intra_gradients_kernel, sum_splits_kernel
from model.ops.ssd.triton.scan import scan_kernel
from model.ops.ssd.triton.states import parts_kernel, states_kernel

PROGRAMS = 264
"""That a launch should have at most for the sake of parallelism: two for each multiprocessor of an H100, as many as fit
there. A constant, since the number of segments is part of the rounding."""

MOST_SEGMENTS = 16
LEAST_CHUNKS = 4
"""Of a segment."""

SLICE = 2**27
MOST_SLICES = 8
"""Bytes of states between chunks, and of their gradients, that the backward holds at a time, unless that takes more
slices than so many: each costs launches, and the end of each an idle part of the GPU."""

HEADS = 16
"""That one program makes decays for."""

SUM_TILE = 1024
"""Elements of dB or dC that one program sums over splits."""

STAGES = 2
"""Of the pipelines of loads, in bf16; fp32 has no shared memory to spare. Three are slower if they cost a program."""

MORE_STAGES = 3
"""Of the kernels that have room for it: `parts`, `states` and `intra_gradients`, with states of up to 64 x 128."""


class Plan:
    """Sizes of a call: a function of shapes and dtypes alone, so that results are; but for `slice_bytes`, with which a
    small input goes through all that a large one does.
    """

    def __init__(self, x: Tensor, B: Tensor, slice_bytes: int | None = None) -> None:
        self.batch, self.seqlen, self.nheads, self.headdim = x.shape
        self.ngroups, self.dstate = B.shape[2:]
        self.Q = 64 if x.dtype is torch.bfloat16 else 32
        self.P, self.N = (max(16, power_of_2(size)) for size in (self.headdim, self.dstate))
        self.nchunks = -(-self.seqlen // self.Q)
        self.state_dtype = torch.bfloat16 if x.dtype is torch.bfloat16 else torch.float32
        self._cut(self.batch * self.nheads, slice_bytes or SLICE)
        heads = self.nheads // self.ngroups
        self.nsplits = min(heads, max(1, PROGRAMS // (self.batch * self.chunks_of_slice * self.ngroups)))
        self.nsplits = -(-heads // -(-heads // self.nsplits))
        self.warps = 4 if self.P * self.N <= 8192 else 8
        small = x.dtype is torch.bfloat16 and self.P * self.N <= 8192
        self.prefetch = {"num_stages": MORE_STAGES} if small else {}
        self.along = self.prefetch | {"num_warps": 8}
        self.sizes = (self.seqlen, self.nheads, self.ngroups)
        self.dots: dict[str, Any] = {
            "headdim": self.headdim,
            "dstate": self.dstate,
            "Q": self.Q,
            "P": self.P,
            "N": self.N,
            "DOT": tl.bfloat16 if x.dtype is torch.bfloat16 else tl.float32,
            "PRECISION": "tf32" if x.dtype is torch.float16 else "ieee",
            "num_stages": STAGES if x.dtype is torch.bfloat16 else 1,
        }

    def _cut(self, rows: int, slice_bytes: int) -> None:
        """Chunks into the forward's segments; those into the backward's, which start where a state is saved, and these
        into slices. Of a segment's parts there are as many in both.
        """
        chunks = -(-self.nchunks // min(max(1, PROGRAMS // rows), max(1, self.nchunks // LEAST_CHUNKS), MOST_SEGMENTS))
        segments = -(-self.nchunks // chunks)
        states = 2 * rows * self.nchunks * self.headdim * self.dstate * self.state_dtype.itemsize
        slices = min(MOST_SLICES, -(-states // slice_bytes))
        saved = min(-(-slices // segments), max(1, chunks // LEAST_CHUNKS))
        of_segment = chunks // saved
        parts = min(max(1, PROGRAMS // (rows * max(1, segments - 1))), max(1, of_segment // LEAST_CHUNKS))
        of_part = -(-chunks // (saved * parts))
        self.chunks_of_segment = parts * of_part
        self.nsegments = -(-self.nchunks // (saved * self.chunks_of_segment))
        self.forward_cut = (self.nsegments, parts, saved * of_part)
        in_all = -(-self.nchunks // self.chunks_of_segment)
        self.segments_of_slice = -(-in_all // slices)
        self.backward_cut = (self.segments_of_slice, parts, of_part)
        self.chunks_of_slice = min(self.nchunks, self.segments_of_slice * self.chunks_of_segment)
        self.nslices = -(-self.nchunks // self.chunks_of_slice)
        self.parts = parts


class Forward:
    """The launches of a forward, which take no more than their tensors."""

    def __init__(self, plan: Plan, dt_limit: tuple[float, float], *flags: bool) -> None:
        softplus, bias, skip, start, documents = flags
        nsegments, parts, chunks_of_part = plan.forward_cut
        sizes = {"seqlen": plan.seqlen, "nheads": plan.nheads, "nchunks": plan.nchunks}
        cut = {"ngroups": plan.ngroups, "nsegments": nsegments, "parts": parts, "chunks_of_part": chunks_of_part}
        plane = plan.batch * plan.nheads * plan.nchunks * plan.Q
        options = {"DOCUMENTS": documents, "num_warps": plan.warps, **plan.dots}
        self.plan = plan
        self.decays = decays_kernel.of(
            (plan.nchunks, -(-plan.nheads // HEADS), plan.batch),
            **sizes, dt_min=dt_limit[0], dt_max=dt_limit[1], Q=plan.Q, H=HEADS, SOFTPLUS=softplus, BIAS=bias,
        )  # fmt: skip
        self.parts = parts_kernel.of(
            (plan.nheads, plan.batch * (nsegments - 1) * parts),
            **sizes, **cut, plane=plane, first_chunk=0, REVERSE=False, **options | plan.along,
        )  # fmt: skip
        self.scan = scan_kernel.of(
            (plan.nheads, plan.batch * nsegments),
            **sizes, **cut, plane=plane, chunks_of_start=plan.chunks_of_segment,
            nstarts=plan.nslices * plan.segments_of_slice, SKIP=skip, START=start, **options,
        )  # fmt: skip


_FORWARDS: Remembered[Forward] = Remembered()
"""By all that their kernels, numbers and constants follow from."""


def saved(x: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Empty tensors of the shapes that `forward` keeps for `backward`."""
    return _saved(x, Plan(x, B))


def _saved(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    states = (plan.batch, plan.nslices * plan.segments_of_slice, plan.nheads, plan.headdim, plan.dstate)
    decays = (4, plan.batch, plan.nheads, plan.nchunks * plan.Q)
    return x.new_empty(states, dtype=torch.float32), x.new_empty(decays, dtype=torch.float32)


def _of_parts(starts: Tensor, segments: int, parts: int) -> tuple[Tensor, Tensor]:
    """Empty tensors for what `parts` makes of all segments but one: states (b, k, h, p, n), and decays (b, k, h)."""
    batch, _, nheads, *state = starts.shape
    found = (batch, (segments - 1) * parts, nheads)
    return starts.new_empty((*found, *state)), starts.new_empty(found)


def forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    initial_state: Tensor | None,
    seq_idx: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    slice_bytes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y (b, seqlen, h, p) in x's dtype, and in fp32 the final state (b, h, p, n); for the backward the states at
    the starts of its segments (b, s, h, p, n) and the decays (4, b, h, c Q).
    """
    flags = (dt_softplus, *(tensor is not None for tensor in (dt_bias, D, initial_state, seq_idx)))
    x, dt, A, B, C = _laid_out(x, dt, A, B, C)
    given = x, dt, A, B, C, bias, skip, start, documents = aligned(
        x, dt, A, B, C, *(_given(tensor, A) for tensor in (dt_bias, D, initial_state, seq_idx))
    )
    call = (x.shape, B.shape, *map(DTYPE, given), *map(DEVICE, given), *flags, *dt_limit, slice_bytes)
    known = _FORWARDS.get(call) or _FORWARDS.add(call, Forward(Plan(x, B, slice_bytes), dt_limit, *flags))
    plan = known.plan
    y, (starts, decays) = torch.empty_like(x), _saved(x, plan)
    final = x.new_empty((plan.batch, plan.nheads, plan.headdim, plan.dstate), dtype=torch.float32)
    local, decay = _of_parts(starts, plan.nsegments, plan.parts)
    with torch.cuda.device_of(x):
        known.decays(dt, A, bias, decays)
        if plan.nsegments > 1:
            known.parts(x, decays, B, documents, local, decay)
        known.scan(x, decays, B, C, skip, documents, start, local, decay, y, starts, final)
    return y, final, starts, decays


def backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    seq_idx: Tensor | None,
    starts: Tensor,
    decays: Tensor,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
    slice_bytes: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, dt, A, B, C, D, dt_bias and initial_state."""
    plan, of_B, of_C = Plan(x, B, slice_bytes), B.dtype, C.dtype
    x, dt, A, B, C = _laid_out(x, dt, A, B, C)
    dy = torch.zeros_like(x) if grad_y is None else grad_y.contiguous()
    d_start = torch.zeros_like(starts[:, 0]) if grad_final_state is None else grad_final_state.contiguous()
    of_slice = (plan.batch, plan.chunks_of_slice, plan.nheads, plan.headdim, plan.dstate)
    states, d_states = (x.new_empty(of_slice, dtype=plan.state_dtype) for _ in range(2))
    local, decay = _of_parts(starts, plan.segments_of_slice, plan.parts)
    dx, ddt, dB, dC = (torch.empty_like(tensor) for tensor in (x, dt, B, C))
    out_dB, out_dC = dB, dC
    if plan.nsplits > 1:
        sums = (plan.nsplits, plan.batch, plan.chunks_of_slice * plan.Q, plan.ngroups, plan.dstate)
        out_dB, out_dC = (x.new_empty(sums, dtype=torch.float32) for _ in range(2))
    dA, dD, d_bias, d_across = (
        x.new_empty((plan.batch, plan.nchunks, plan.nheads), dtype=torch.float32) for _ in range(4)
    )
    shares = torch.empty_like(decays)
    per_group = (plan.batch, plan.chunks_of_slice, plan.ngroups * plan.nsplits, plan.Q, plan.Q)
    d_scores = x.new_empty(per_group, dtype=plan.state_dtype)
    options = {"DOCUMENTS": seq_idx is not None, "num_warps": plan.warps, **plan.dots}
    documents, plane = _given(seq_idx, A), decays.stride(0)
    with torch.cuda.device_of(x):
        for first in reversed(range(0, plan.nchunks, plan.chunks_of_slice)):
            along = (*plan.sizes, *plan.backward_cut, first, plan.nchunks)
            if plan.segments_of_slice > 1:
                parts_kernel[(plan.nheads, local.shape[0] * local.shape[1])](
                    *(dy, decays, plane, C, documents, local, decay, *along),
                    REVERSE=True, **options | plan.along,
                )  # fmt: skip
            d_final, d_start = d_start, torch.empty_like(starts[:, 0])
            states_kernel[(plan.nheads, plan.batch * plan.segments_of_slice, 2)](
                *(x, dy, decays, plane, B, C, documents, starts, d_final, local, decay, states, d_states, d_start),
                *(*along, starts.shape[1]),
                **options | plan.along,
            )
            count = min(plan.chunks_of_slice, plan.nchunks - first)
            chunks = (count, plan.ngroups * plan.nsplits, plan.batch)
            sizes = (*plan.sizes, plan.nchunks, plan.nsplits, first)
            inputs = (dy, x, decays, plane, B, C)
            intra_gradients_kernel[chunks](
                *(*inputs, _given(D, A), documents, d_states, dx, d_scores, shares, dD, *sizes),
                SKIP=D is not None, **options | plan.prefetch,
            )  # fmt: skip
            rows = (plan.seqlen, 0) if plan.nsplits == 1 else (out_dB.shape[2], first)
            inter_gradients_kernel[chunks](
                *(*inputs, documents, states, d_states, d_scores, out_dB, out_dC, shares, d_across, *sizes, *rows),
                **options,
            )
            if plan.nsplits > 1:
                length = min(count * plan.Q, plan.seqlen - first * plan.Q)
                width = plan.ngroups * plan.dstate
                sum_splits_kernel[(-(-length * width // SUM_TILE), plan.batch, 2)](
                    *(out_dB, out_dC, dB, dC, plan.nsplits, out_dB.shape[2], plan.seqlen, first * plan.Q, length),
                    width=width, T=SUM_TILE,
                )  # fmt: skip
        step_gradients_kernel[(plan.nchunks, -(-plan.nheads // HEADS), plan.batch)](
            *(dt, A, _given(dt_bias, A), d_across, shares, ddt, dA, d_bias),
            *(plan.seqlen, plan.nheads, plan.nchunks, *dt_limit),
            Q=plan.Q, H=HEADS, SOFTPLUS=dt_softplus, BIAS=dt_bias is not None,
        )  # fmt: skip
    dA, dD, d_bias = (tensor.sum((0, 1)) for tensor in (dA, dD, d_bias))
    return (
        dx,
        ddt,
        dA.to(A.dtype),
        dB.to(of_B),
        dC.to(of_C),
        A.new_zeros(plan.nheads) if D is None else dD.to(D.dtype),
        dA.new_zeros(plan.nheads) if dt_bias is None else d_bias.to(dt_bias.dtype),
        d_start,
    )


def _laid_out(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """What kernels read: contiguous, and the factors of a product in one dtype."""
    if not x.dtype is B.dtype is C.dtype:
        B, C = B.to(x.dtype), C.to(x.dtype)
    return x.contiguous(), dt.contiguous(), A.contiguous(), B.contiguous(), C.contiguous()


def _given(tensor: Tensor | None, other: Tensor) -> Tensor:
    """An argument of a kernel; any where there is none, since it is not looked at."""
    return other if tensor is None else tensor.contiguous()
