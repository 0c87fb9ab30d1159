"""One position of the scan: a state is read, advanced, multiplied with C and written in one pass."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.ops._launch import Launched, power_of_2
from model.ops.ssd.triton.decays import step_sizes

LARGEST = 4096
"""Values of a state that a program holds: 32 of each thread's registers."""


@Launched
@triton.jit
def step_kernel(
    x, dt, B, C, A, D, dt_bias, state, y, x_stride, dt_stride, B_stride, C_stride, nheads, ngroups, dt_min, dt_max,
    headdim: tl.constexpr, dstate: tl.constexpr, P: tl.constexpr, N: tl.constexpr, SOFTPLUS: tl.constexpr,
    SKIP: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """P channels of a head of one row."""
    h, b, p, n = tl.program_id(0), tl.program_id(2), tl.program_id(1) * P + tl.arange(0, P), tl.arange(0, N)
    g = h // (nheads // ngroups)
    there, inside = p < headdim, (p[:, None] < headdim) & (n[None, :] < dstate)
    place = state + (b * nheads + h).to(tl.int64) * (headdim * dstate) + (p[:, None] * dstate + n[None, :])
    before = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    raw, bias = tl.load(dt + b * dt_stride + h).to(tl.float32), 0.0
    if BIAS:
        bias = tl.load(dt_bias + h).to(tl.float32)
    step, _ = step_sizes(raw, bias, dt_min, dt_max, SOFTPLUS)
    xs = tl.load(x + b * x_stride + h * headdim + p, mask=there, other=0.0).to(tl.float32)
    Bs = tl.load(B + b * B_stride + g * dstate + n, mask=n < dstate, other=0.0).to(tl.float32)
    Cs = tl.load(C + b * C_stride + g * dstate + n, mask=n < dstate, other=0.0).to(tl.float32)
    after = before * tl.exp(step * tl.load(A + h).to(tl.float32)) + (step * xs)[:, None] * Bs[None, :]
    tl.store(place, after.to(state.dtype.element_ty), mask=inside)
    out = tl.sum(after * Cs[None, :], 1)
    if SKIP:
        out += tl.load(D + h).to(tl.float32) * xs
    tl.store(y + (b * nheads + h) * headdim + p, out.to(y.dtype.element_ty), mask=there)


def step(
    x: Tensor,
    dt: Tensor,
    B: Tensor,
    C: Tensor,
    A: Tensor,
    state: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
) -> Tensor:
    """As `ssd_step`, where each row of x, dt, B and C is contiguous, and the state."""
    batch, nheads, headdim = x.shape
    ngroups, dstate = B.shape[1:]
    N = power_of_2(dstate)
    P = min(power_of_2(headdim), max(1, LARGEST // N))
    y = torch.empty((batch, nheads, headdim), dtype=x.dtype, device=x.device)
    per_head = [(A if tensor is None else tensor).contiguous() for tensor in (A, D, dt_bias)]
    with torch.cuda.device_of(x):
        step_kernel[(nheads, -(-headdim // P), batch)](
            *(x, dt, B, C, *per_head, state, y),
            *(x.stride(0), dt.stride(0), B.stride(0), C.stride(0), nheads, ngroups, *dt_limit),
            *(headdim, dstate, P, N, dt_softplus, D is not None, dt_bias is not None),
            num_warps=4,
        )
    return y


def readable(*rows: Tensor) -> tuple[Tensor, ...]:
    """Each tensor, or a copy of it where a row is not contiguous."""
    return tuple(row if row[:1].is_contiguous() else row.contiguous() for row in rows)
