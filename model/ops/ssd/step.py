"""One position of the SSD, for decoding: no custom op, since a call of one costs more than the work."""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops import _native
from model.ops._common import full_precision
from model.ops.ssd import native


def ssd_step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    *,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, math.inf),
    backend: _native.StepBackend = "auto",
) -> tuple[Tensor, Tensor]:
    """Advance the scan by one position.

    Args:
        x: (batch, nheads, headdim).
        dt: (batch, nheads).
        A: (nheads,).
        B: (batch, ngroups, dstate).
        C: (batch, ngroups, dstate).
        state: (batch, nheads, headdim, dstate), fp32; overwritten with the new state, since a new tensor of its
            size at every step would cost more than the arithmetic.
        D, dt_bias, dt_softplus, dt_limit: as in `ssd`.
        backend: "torch"; "native", in C, for fp32 on a CPU; "auto" takes that where it can.

    Returns:
        y (batch, nheads, headdim) in x's dtype, and `state`.

    Raises:
        ValueError: shapes that do not fit together, an unknown backend, or one that cannot be had.
    """
    batch, nheads, headdim = x.shape
    ngroups, dstate = B.shape[1:]
    fits = (
        dt.shape == (batch, nheads)
        and A.shape == (nheads,)
        and B.shape == C.shape == (batch, ngroups, dstate)
        and state.shape == (batch, nheads, headdim, dstate)
        and (D is None or D.shape == A.shape)
        and (dt_bias is None or dt_bias.shape == A.shape)
        and nheads % ngroups == 0
    )
    if not fits:
        names, tensors = ("x", "dt", "A", "B", "C", "state", "D", "dt_bias"), (x, dt, A, B, C, state, D, dt_bias)
        shapes = {name: tuple(t.shape) for name, t in zip(names, tensors, strict=True) if t is not None}
        raise ValueError(f"shapes do not fit together: {shapes}")
    tensors = (x, dt, A, B, C, state, D, dt_bias)
    if _native.chosen(backend, tensors, _native_works) and state.is_contiguous():
        return native.step(*tensors, dt_softplus, dt_limit), state
    return _torch_step(*tensors, dt_softplus, dt_limit), state


def _torch_step(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    dt_limit: tuple[float, float],
) -> Tensor:
    with full_precision(x):
        dtype = state.dtype
        batch, nheads, headdim = x.shape
        ngroups, dstate = B.shape[1:]
        dt = dt.to(dtype) if dt_bias is None else dt.to(dtype) + dt_bias
        if dt_softplus:
            dt = F.softplus(dt)
        if dt_limit != (0.0, math.inf) or not dt_softplus:
            dt = dt.clamp(*dt_limit)
        x_now = x.to(dtype)
        update = (x_now * dt.unsqueeze(-1)).view(batch, ngroups, -1, 1)
        state.mul_((dt * A).exp_().view(batch, nheads, 1, 1))
        grouped = state.view(batch, ngroups, -1, dstate).addcmul_(update, B.to(dtype).unsqueeze(2))
        if batch * ngroups == 1:
            y = torch.mv(grouped.view(-1, dstate), C.to(dtype).view(-1)).view(batch, nheads, headdim)
        else:  # on a CPU a batched product of matrices and vectors takes them one by one, four times as long
            y = torch.linalg.vecdot(grouped, C.to(dtype).unsqueeze(2)).view(batch, nheads, headdim)
        if D is not None:
            y.addcmul_(x_now, D.unsqueeze(-1))
        return y.to(x.dtype)


@cache
def _native_works() -> bool:
    """Whether the C kernel is there and does on a small input what torch does; asked once per process."""
    if native.kernel() is None:
        return False
    shapes = ((2, 4, 3), (2, 4), (4,), (2, 2, 5), (2, 2, 5), (2, 4, 3, 5), (4,), (4,))
    x, dt, A, B, C, state, D, dt_bias = _native.small_inputs(*shapes)
    options = (D, dt_bias, True, (0.0, math.inf))
    theirs, ours = state.clone(), state.clone()
    expected = _torch_step(x, dt, -A.abs(), B, C, theirs, *options)
    return _native.agree("ssd_step", [native.step(x, dt, -A.abs(), B, C, ours, *options), ours], [expected, theirs])
