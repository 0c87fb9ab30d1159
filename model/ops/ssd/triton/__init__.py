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
              gradients       of x, B and C, chunk by chunk, the heads of a group in turn: by two programs, one that
                              goes `through` the states and one that stays `inside` the chunk
              sum_splits      of B and C, where few chunks leave the GPU idle and a group's heads are split
    and then  step_gradients  of the step sizes, from what the others say of the decays
              totals          of A, D and dt_bias, over the chunks

On Hopper, in bf16 at the presets' sizes of state, if groups have an even number of heads, others compute the same
(hopper/): `parts`, `scan` and `states` for two heads of a group at a time, `gradients` by one program.

Shapes: b batch, c chunks, s segments, k parts of segments, g groups, h heads, p headdim, n dstate; Q positions of a
chunk. Decays are sums of a = dt A, in fp32: of a chunk only, and with a at least -20 (e^-20 is less than fp32
resolves), so that the difference of two sums keeps what lies between them.
"""

import torch
from torch import Tensor

from model.ops._launch import DEVICE, DTYPE, Remembered, aligned
from model.ops.ssd.triton.launches import Backward, Forward
from model.ops.ssd.triton.plan import Plan

_FORWARDS: Remembered[Forward] = Remembered()
_BACKWARDS: Remembered[Backward] = Remembered()
"""By all that their kernels, numbers and constants follow from."""


def saved(x: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """Empty tensors of the shapes that `forward` keeps for `backward`."""
    return _saved(x, Plan(x, B))


def _saved(x: Tensor, plan: Plan) -> tuple[Tensor, Tensor]:
    states = (plan.batch, plan.nstarts, plan.nheads, plan.headdim, plan.dstate)
    decays = (4, plan.batch, plan.nheads, plan.nchunks * plan.Q)
    return x.new_empty(states, dtype=torch.float32), x.new_empty(decays, dtype=torch.float32)


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
    given = aligned(x, dt, A, B, C, *(_given(tensor, A) for tensor in (dt_bias, D, initial_state, _narrow(seq_idx))))
    call = (x.shape, B.shape, *map(DTYPE, given), *map(DEVICE, given), *flags, *dt_limit, slice_bytes)
    known = _FORWARDS.get(call) or _FORWARDS.add(call, Forward(Plan(x, B, slice_bytes), dt_limit, *flags))
    y, (starts, decays) = torch.empty_like(x), _saved(x, known.plan)
    final = x.new_empty((len(x), *x.shape[2:], B.shape[3]), dtype=torch.float32)
    with torch.cuda.device_of(x):
        known.launches(*given, y, final, starts, decays)
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
    flags = (dt_softplus, *(tensor is not None for tensor in (dt_bias, D, seq_idx)))
    of_B, of_C = B.dtype, C.dtype
    x, dt, A, B, C = _laid_out(x, dt, A, B, C)
    dy = torch.zeros_like(x) if grad_y is None else grad_y.contiguous()
    of_states = (len(x), *x.shape[2:], B.shape[3])
    d_final = grad_final_state
    d_final = x.new_zeros(of_states, dtype=torch.float32) if d_final is None else d_final.contiguous()
    others = (_given(tensor, A) for tensor in (dt_bias, D, _narrow(seq_idx)))
    given = aligned(dy, d_final, x, dt, A, B, C, *others, starts, decays)
    call = (x.shape, B.shape, *map(DTYPE, given), *map(DEVICE, given), *flags, *dt_limit, slice_bytes)
    known = _BACKWARDS.get(call) or _BACKWARDS.add(call, Backward(Plan(x, B, slice_bytes), dt_limit, *flags))
    dx, ddt, dA, dB, dC = map(torch.empty_like, (x, dt, A, B, C))
    dD = torch.empty_like(A if D is None else D)
    d_bias = x.new_empty(A.shape, dtype=torch.float32 if dt_bias is None else dt_bias.dtype)
    d_start = torch.empty_like(d_final, dtype=torch.float32)
    with torch.cuda.device_of(x):
        known.launches(*given, dx, ddt, dA, dB, dC, dD, d_bias, d_start)
    return dx, ddt, dA, dB.to(of_B), dC.to(of_C), dD, d_bias, d_start


def _laid_out(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, ...]:
    """What kernels read: contiguous, and the factors of a product in one dtype."""
    if not x.dtype is B.dtype is C.dtype:
        B, C = B.to(x.dtype), C.to(x.dtype)
    return x.contiguous(), dt.contiguous(), A.contiguous(), B.contiguous(), C.contiguous()


def _narrow(seq_idx: Tensor | None) -> Tensor | None:
    """As the kernels copy it: 32 bits."""
    return None if seq_idx is None else seq_idx.to(torch.int32)


def _given(tensor: Tensor | None, other: Tensor) -> Tensor:
    """An argument of a kernel; any where there is none, since it is not looked at."""
    return other if tensor is None else tensor.contiguous()
